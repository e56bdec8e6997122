//! Text on its way to standard output.

use crate::output;
use kiln::{Detokenizer, Tokenizer};

/// Turns ids into text, and prints it in groups of tokens.
pub(super) struct Stream<'a> {
    detokenizer: Option<Detokenizer<'a>>,
    /// Tokens per group.
    group: usize,
    /// Tokens since text was last printed.
    waiting: usize,
    text: String,
    /// How many bytes of the text have been printed.
    printed: usize,
    silent: bool,
}

impl<'a> Stream<'a> {
    /// A stream that prints after every `group` tokens, or that with `silent` only collects.
    /// Without a tokenizer there is no text.
    pub(super) fn new(tokenizer: Option<&'a Tokenizer>, group: usize, silent: bool) -> Stream<'a> {
        let detokenizer = tokenizer.map(|tokenizer| tokenizer.detokenizer(true));
        Stream {
            detokenizer,
            group,
            waiting: 0,
            text: String::new(),
            printed: 0,
            silent,
        }
    }

    pub(super) fn push(&mut self, id: u32) -> anyhow::Result<()> {
        if let Some(detokenizer) = &mut self.detokenizer {
            self.text.push_str(&detokenizer.push(id));
        }
        self.waiting += 1;
        if self.waiting >= self.group {
            self.print()?;
        }
        Ok(())
    }

    /// Prints what is left and a newline; gives the whole text.
    pub(super) fn finish(mut self) -> anyhow::Result<String> {
        if let Some(detokenizer) = &mut self.detokenizer {
            self.text.push_str(&detokenizer.finish());
        }
        self.print()?;
        if !self.silent {
            output::write("\n")?;
        }
        Ok(self.text)
    }

    /// Prints what is left, so that an error begins a line of its own.
    pub(super) fn abandon(&mut self) {
        // The error that led here is the one to tell.
        let _ = self.print();
        if self.printed > 0 {
            let _ = output::write("\n");
        }
    }

    fn print(&mut self) -> anyhow::Result<()> {
        self.waiting = 0;
        let new = &self.text[self.printed..];
        if !self.silent && !new.is_empty() {
            output::write(new)?;
            self.printed = self.text.len();
        }
        Ok(())
    }
}
