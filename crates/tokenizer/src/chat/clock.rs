//! Dates in chat templates.

use std::fmt::Write as _;

use chrono::{Datelike, Timelike};
use minijinja::{Error, ErrorKind};

/// A date and time of day, as `strftime_now` of a template shows it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct DateTime {
    /// Year of the Gregorian calendar.
    pub year: i32,
    /// 1 to 12.
    pub month: u32,
    /// 1 to 31.
    pub day: u32,
    /// 0 to 23.
    pub hour: u32,
    /// 0 to 59.
    pub minute: u32,
    /// 0 to 60.
    pub second: u32,
}

const DAYS: [&str; 7] = [
    "Sunday",
    "Monday",
    "Tuesday",
    "Wednesday",
    "Thursday",
    "Friday",
    "Saturday",
];
const MONTHS: [&str; 12] = [
    "January",
    "February",
    "March",
    "April",
    "May",
    "June",
    "July",
    "August",
    "September",
    "October",
    "November",
    "December",
];

impl DateTime {
    /// The local time.
    pub(super) fn now() -> Self {
        let now = chrono::Local::now();
        Self {
            year: now.year(),
            month: now.month(),
            day: now.day(),
            hour: now.hour(),
            minute: now.minute(),
            second: now.second(),
        }
    }

    /// The time in a format of C's `strftime` in the C locale. A directive that depends on more
    /// than date and time, or is not known, is an error.
    pub(super) fn format(&self, format: &str) -> Result<String, Error> {
        let mut out = String::new();
        let mut rest = format.chars();
        while let Some(next) = rest.next() {
            if next != '%' {
                out.push(next);
                continue;
            }
            let mut directive = rest.next();
            let bare = directive == Some('-');
            if bare {
                directive = rest.next();
            }
            self.directive(directive, bare, &mut out).ok_or_else(|| {
                let found = directive.map(String::from).unwrap_or_default();
                Error::new(
                    ErrorKind::InvalidOperation,
                    format!("strftime_now: %{found} is not supported"),
                )
            })?;
        }
        Ok(out)
    }

    fn directive(&self, directive: Option<char>, bare: bool, out: &mut String) -> Option<()> {
        let hour = (self.hour + 11) % 12 + 1;
        let zeros = |value: u32, width: usize| match bare {
            true => value.to_string(),
            false => format!("{value:0width$}"),
        };
        let blanks = |value: u32| match bare {
            true => value.to_string(),
            false => format!("{value:2}"),
        };
        let month = MONTHS.get(self.month.checked_sub(1)? as usize)?;
        let day = DAYS.get(self.weekday() as usize)?;
        let text = match directive? {
            'Y' => self.year.to_string(),
            'y' => zeros(self.year.rem_euclid(100) as u32, 2),
            'm' => zeros(self.month, 2),
            'd' => zeros(self.day, 2),
            'e' => blanks(self.day),
            'H' => zeros(self.hour, 2),
            'I' => zeros(hour, 2),
            'k' => blanks(self.hour),
            'l' => blanks(hour),
            'M' => zeros(self.minute, 2),
            'S' => zeros(self.second, 2),
            'j' => zeros(self.day_of_year(), 3),
            'p' => if self.hour < 12 { "AM" } else { "PM" }.to_owned(),
            'B' => (*month).to_owned(),
            'b' | 'h' => month.chars().take(3).collect(),
            'A' => (*day).to_owned(),
            'a' => day.chars().take(3).collect(),
            'w' => self.weekday().to_string(),
            'u' => ((self.weekday() + 6) % 7 + 1).to_string(),
            'F' => self.join(&['Y', 'm', 'd'], "-")?,
            'T' => self.join(&['H', 'M', 'S'], ":")?,
            'R' => self.join(&['H', 'M'], ":")?,
            'D' | 'x' => self.join(&['m', 'd', 'y'], "/")?,
            'X' => self.join(&['H', 'M', 'S'], ":")?,
            'c' => self.join(&['a', 'b', 'e', 'T', 'Y'], " ")?,
            'n' => "\n".to_owned(),
            't' => "\t".to_owned(),
            '%' => "%".to_owned(),
            _ => return None,
        };
        out.write_str(&text).ok()
    }

    fn join(&self, directives: &[char], separator: &str) -> Option<String> {
        let mut parts = Vec::with_capacity(directives.len());
        for &directive in directives {
            let mut part = String::new();
            self.directive(Some(directive), false, &mut part)?;
            parts.push(part);
        }
        Some(parts.join(separator))
    }

    /// 0 for Sunday.
    fn weekday(&self) -> u32 {
        let shifted = i64::from(self.year) - i64::from(self.month < 3);
        let leaps = shifted.div_euclid(4) - shifted.div_euclid(100) + shifted.div_euclid(400);
        let month = [0, 3, 2, 5, 0, 3, 5, 1, 4, 6, 2, 4][(self.month + 11) as usize % 12];
        (shifted + leaps + month + i64::from(self.day)).rem_euclid(7) as u32
    }

    fn day_of_year(&self) -> u32 {
        let leap = self.year % 4 == 0 && (self.year % 100 != 0 || self.year % 400 == 0);
        let before = [0, 31, 59, 90, 120, 151, 181, 212, 243, 273, 304, 334];
        before[(self.month + 11) as usize % 12] + self.day + u32::from(leap && self.month > 2)
    }
}
