//! Puts numbers, members and ways into words and tables for people. Everything is a function of a value and the time of day.
//!
//! What others chose (nicknames, reasons) is made harmless for a terminal here. Colours say again what words say:
//! nothing is told by colour alone.

pub(crate) mod members;
pub(crate) mod status;

pub(crate) mod start;

use std::time::{Duration, SystemTime};

use comfy_table::presets::NOTHING;
use comfy_table::{CellAlignment, Table};

use crate::output::clean;

/// A round trip, with as many digits as mean something.
pub(crate) fn rtt(milliseconds: f64) -> String {
    if milliseconds < 0.1 {
        format!("{milliseconds:.2} ms")
    } else if milliseconds < 10.0 {
        format!("{milliseconds:.1} ms")
    } else {
        format!("{milliseconds:.0} ms")
    }
}

/// A share lost.
pub(crate) fn loss(share: f64) -> String {
    format!("{:.0}%", share * 100.0)
}

/// How long ago a time of day was, or the time itself where it makes no sense.
pub(crate) fn since(time: &str, now: SystemTime) -> String {
    match humantime::parse_rfc3339(time) {
        Ok(at) => age(now.duration_since(at).unwrap_or_default()),
        Err(_) => clean(time),
    }
}

/// A duration in its two largest units.
pub(crate) fn age(duration: Duration) -> String {
    let seconds = duration.as_secs();
    let (minutes, hours, days) = (seconds / 60, seconds / 3600, seconds / 86400);
    if days > 0 {
        format!("{days} d {} h", hours % 24)
    } else if hours > 0 {
        format!("{hours} h {} min", minutes % 60)
    } else if minutes > 0 {
        format!("{minutes} min {} s", seconds % 60)
    } else {
        format!("{seconds} s")
    }
}

/// A number of bytes, as short as it says enough.
pub(crate) fn bytes(count: u64) -> String {
    let mut value = count as f64;
    for unit in ["B", "kB", "MB", "GB"] {
        if value < 999.5 {
            let digits = usize::from(value < 9.95 && unit != "B");
            return format!("{value:.digits$} {unit}");
        }
        value /= 1000.0;
    }
    format!("{value:.1} TB")
}

/// What a table shows where there is nothing.
pub(crate) fn nothing() -> String {
    "-".to_owned()
}

/// What there is, or what a table shows where there is nothing.
pub(crate) fn or_nothing(value: Option<impl ToString>) -> String {
    value.map_or_else(nothing, |value| value.to_string())
}

/// A table with these titles.
pub(crate) fn table(header: &[&str]) -> Table {
    let mut table = Table::new();
    table.load_style(NOTHING);
    if !header.is_empty() {
        table.set_header(header.iter().map(|title| (*title).to_owned()));
    }
    table
}

/// A table as text.
pub(crate) fn finish(table: &Table) -> String {
    let mut table = table.clone();
    for column in table.column_iter_mut() {
        column.set_padding((0, 2));
        column.set_cell_alignment(CellAlignment::Left);
    }
    let lines: Vec<String> = table
        .lines()
        .map(|line| line.trim_end().to_owned())
        .collect();
    lines.join("\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_as_short_as_they_say_enough() {
        assert_eq!(bytes(0), "0 B");
        assert_eq!(bytes(999), "999 B");
        assert_eq!(bytes(1000), "1.0 kB");
        assert_eq!(bytes(999_600), "1.0 MB");
        assert_eq!(bytes(123_456_789), "123 MB");
        assert_eq!(age(Duration::from_secs(59)), "59 s");
        assert_eq!(age(Duration::from_secs(3 * 86400 + 4 * 3600)), "3 d 4 h");
        assert_eq!(rtt(0.042), "0.04 ms");
        assert_eq!(rtt(0.84), "0.8 ms");
        assert_eq!(rtt(41.2), "41 ms");
    }
}
