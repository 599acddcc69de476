//! What verbs print: tables for people, JSON and YAML for programs.

use std::fmt::Display;
use std::io::{ErrorKind, IsTerminal, Write};

use clap::ValueEnum;
use comfy_table::{ContentArrangement, Table, presets};
use serde::Serialize;
use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;

use crate::failure::Result;

/// How a list is printed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub(crate) enum Format {
    /// Columns, for people.
    #[default]
    Table,
    /// Indented JSON.
    Json,
    /// YAML.
    Yaml,
}

/// The format that a verb prints.
#[derive(clap::Args, Clone, Copy, Debug)]
pub(crate) struct Output {
    /// Print as a table for people, or as JSON or YAML for programs
    #[arg(short = 'o', long = "output", value_name = "FORMAT", default_value = "table")]
    pub(crate) format: Format,
}

impl Output {
    /// Prints a value: by `table` for people, else as it is.
    pub(crate) fn print<T: Serialize>(self, value: &T, table: impl FnOnce(&T) -> String) -> Result {
        let text = match self.format {
            Format::Table => table(value),
            Format::Json => serde_json::to_string_pretty(value)? + "\n",
            Format::Yaml => serde_saphyr::to_string(value)?,
        };
        print(&text)
    }
}

/// Writes to standard output. A reader that has gone away (`| head`) is no error.
pub(crate) fn print(text: &str) -> Result {
    let mut stdout = std::io::stdout().lock();
    match stdout.write_all(text.as_bytes()).and_then(|()| stdout.flush()) {
        Err(error) if error.kind() != ErrorKind::BrokenPipe => Err(error.into()),
        _ => Ok(()),
    }
}

/// Writes a line to standard error, as far as there is one.
pub(crate) fn complain(text: &str) {
    let _ = writeln!(std::io::stderr().lock(), "{text}");
}

/// A table's rows under their headings, in columns; nothing but the headings without rows.
pub(crate) fn columns<const N: usize>(
    headings: [&str; N],
    rows: impl IntoIterator<Item = [String; N]>,
) -> String {
    // Only a terminal has a width that cells should be broken for.
    let width = if std::io::stdout().is_terminal() {
        Table::new().width()
    } else {
        None
    };
    columns_within(width, headings, rows)
}

/// Cells are broken for a width; a terminal that says 0 (a serial line, some consoles) does not know its own.
fn columns_within<const N: usize>(
    width: Option<u16>,
    headings: [&str; N],
    rows: impl IntoIterator<Item = [String; N]>,
) -> String {
    let mut table = Table::new();
    table.load_style(presets::NOTHING).set_header(headings);
    if let Some(width) = width.filter(|width| *width > 0) {
        table.set_content_arrangement(ContentArrangement::Dynamic);
        table.set_width(width);
    }
    table.add_rows(rows);
    for column in table.column_iter_mut() {
        column.set_padding((0, 2));
    }
    table.trim_fmt() + "\n"
}

/// A value that may be missing.
pub(crate) fn or_dash<T: Display>(value: Option<T>) -> String {
    value.map_or_else(|| "-".to_owned(), |value| value.to_string())
}

/// Microseconds as milliseconds; 0: not measured.
pub(crate) fn us_as_ms(us: u32) -> String {
    or_dash((us != 0).then(|| ms(f64::from(us) / 1000.0)))
}

/// Milliseconds to a tenth.
pub(crate) fn ms(ms: f64) -> String {
    format!("{ms:.1}")
}

/// A duration in the largest unit that leaves a number to read.
pub(crate) fn ago(ms: u64) -> String {
    match ms {
        0..1_000 => format!("{ms} ms"),
        1_000..120_000 => format!("{} s", ms / 1_000),
        120_000..7_200_000 => format!("{} min", ms / 60_000),
        7_200_000..172_800_000 => format!("{} h", ms / 3_600_000),
        _ => format!("{} d", ms / 86_400_000),
    }
}

/// Seconds since 1970 as date and time, in UTC.
pub(crate) fn when(unix_s: u64) -> String {
    let time = i64::try_from(unix_s).ok();
    let time = time.and_then(|time| OffsetDateTime::from_unix_timestamp(time).ok());
    let text = time.and_then(|time| time.format(&Rfc3339).ok());
    text.unwrap_or_else(|| format!("{unix_s} s"))
}

/// Octets in the units of networks: powers of 1000.
pub(crate) fn octets(octets: u64) -> String {
    let mut value = octets;
    let mut tenth = 0;
    let units = ["B", "kB", "MB", "GB", "TB", "PB"];
    let mut unit = 0;
    while value >= 1000 && unit + 1 < units.len() {
        tenth = value % 1000 / 100;
        value /= 1000;
        unit += 1;
    }
    match unit {
        0 => format!("{value} B"),
        _ => format!("{value}.{tenth} {}", units[unit]),
    }
}

/// Octets as hexadecimal digits, a space between each four of them.
pub(crate) fn hex(octets: &[u8]) -> String {
    let words = octets.chunks(2).map(|word| {
        word.iter()
            .map(|octet| format!("{octet:02x}"))
            .collect::<String>()
    });
    words.collect::<Vec<_>>().join(" ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_short() {
        assert_eq!([ago(999), ago(61_000), ago(7_200_000)], ["999 ms", "61 s", "2 h"]);
        assert_eq!(
            [octets(999), octets(1_550), octets(12_345_678)],
            ["999 B", "1.5 kB", "12.3 MB"]
        );
        assert_eq!([us_as_ms(0), us_as_ms(12_340)], ["-", "12.3"]);
        assert_eq!(hex(&[1, 2, 0xff]), "0102 ff");
    }

    #[test]
    fn columns_have_no_blanks_at_the_end() {
        let table = columns(["A", "LONG"], [["1".to_owned(), "2".to_owned()]]);
        assert_eq!(table, "A  LONG\n1  2\n");
    }

    #[test]
    fn cells_are_broken_for_a_terminal_that_knows_its_width() {
        let table = |width| {
            let rows = [["left".to_owned(), "several words in a cell".to_owned()]];
            columns_within(width, ["HOST", "WHY"], rows)
        };
        let whole = "HOST  WHY\nleft  several words in a cell\n";
        assert_eq!([table(None), table(Some(0)), table(Some(200))], [whole; 3]);
        assert!(table(Some(20)).lines().count() > 2);
        for width in 1..80 {
            assert!(table(Some(width)).lines().count() > 1);
        }
    }
}
