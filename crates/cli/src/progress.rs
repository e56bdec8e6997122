//! A bar on standard error, on a terminal only.

use indicatif::{ProgressBar, ProgressStyle};

const STEPS: &str = "{msg} [{wide_bar}] {percent:>3}% {eta}";
const BYTES: &str = "{msg} [{wide_bar}] {binary_bytes} of {binary_total_bytes}, {eta} left";

/// A bar that appears with the first step and goes away when it is dropped.
pub(crate) struct Bar {
    shown: Option<ProgressBar>,
    wanted: bool,
    style: &'static str,
}

impl Bar {
    /// A bar, or with `quiet` none.
    pub(crate) fn new(quiet: bool) -> Bar {
        Bar {
            shown: None,
            wanted: !quiet,
            style: STEPS,
        }
    }

    /// A bar whose steps are bytes.
    pub(crate) fn of_bytes(quiet: bool) -> Bar {
        Bar {
            shown: None,
            wanted: !quiet,
            style: BYTES,
        }
    }

    /// `done` of `total`, doing `what`.
    pub(crate) fn set(&mut self, done: u64, total: u64, what: &str) {
        if !self.wanted {
            return;
        }
        let bar = self.shown.get_or_insert_with(|| {
            let style = ProgressStyle::with_template(self.style);
            let style = style.unwrap_or_else(|_| ProgressStyle::default_bar());
            ProgressBar::new(total).with_style(style)
        });
        bar.set_length(total);
        bar.set_message(crate::output::plain(what));
        bar.set_position(done);
    }

    /// Takes the bar off the screen.
    pub(crate) fn clear(&mut self) {
        if let Some(bar) = self.shown.take() {
            bar.finish_and_clear();
        }
    }
}

impl Drop for Bar {
    fn drop(&mut self) {
        self.clear();
    }
}
