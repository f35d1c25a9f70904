//! A job's errors, as compilers print them.

use std::fmt::Write;

use engine::sql::JobError;

/// What a diagnostic is.
const RED: &str = "\x1b[1;31m";
const YELLOW: &str = "\x1b[1;33m";
const BLUE: &str = "\x1b[1;34m";
const BOLD: &str = "\x1b[1m";
const PLAIN: &str = "\x1b[0m";

/// Prints each error with its place in the file `name`, the line that it is in, and what to write instead. `kind` is
/// `error` or `warning`.
pub fn render(kind: &str, name: &str, text: &str, errors: &[JobError], colour: bool) -> String {
    let paint = |code: &str, text: &str| {
        if colour {
            format!("{code}{text}{PLAIN}")
        } else {
            text.to_owned()
        }
    };
    let severity = if kind == "error" { RED } else { YELLOW };
    let mut out = String::new();
    // Writing to a String cannot fail.
    for error in errors {
        let number = error.at.line.to_string();
        let gutter = " ".repeat(number.len());
        let bar = paint(BLUE, "|");
        let _ = writeln!(
            out,
            "{}{} {}",
            paint(severity, kind),
            paint(BOLD, ":"),
            paint(BOLD, &error.what)
        );
        let _ = writeln!(
            out,
            "{gutter}{} {name}:{}:{}",
            paint(BLUE, "-->"),
            error.at.line,
            error.at.column
        );
        if let Some(line) = line_of(text, error.at.line) {
            let column = usize::try_from(error.at.column)
                .unwrap_or(usize::MAX)
                .saturating_sub(1);
            let (pad, carets) = marked(line, column);
            let _ = writeln!(out, "{gutter} {bar}");
            let _ = writeln!(out, "{} {bar} {line}", paint(BLUE, &number));
            let _ = writeln!(out, "{gutter} {bar} {pad}{}", paint(severity, &carets));
        }
        if let Some(help) = &error.help {
            let _ = writeln!(out, "{gutter} {} {help}", paint(BLUE, "= help:"));
        }
        out.push('\n');
    }
    out
}

fn line_of(text: &str, number: u64) -> Option<&str> {
    let index = usize::try_from(number).ok()?.checked_sub(1)?;
    text.lines().nth(index)
}

/// What stands before the carets, tabs kept as they are, and the carets under the word that begins at `column`.
fn marked(line: &str, column: usize) -> (String, String) {
    let pad = line
        .chars()
        .chain(std::iter::repeat(' '))
        .take(column.min(line.chars().count()))
        .map(|c| if c == '\t' { '\t' } else { ' ' })
        .collect();
    let word = line
        .chars()
        .skip(column)
        .take_while(|c| c.is_alphanumeric() || *c == '_')
        .count();
    (pad, "^".repeat(word.max(1)))
}

#[cfg(test)]
mod tests {
    use engine::sql::Location;

    use super::*;

    fn error(line: u64, column: u64, help: Option<&str>) -> JobError {
        JobError {
            at: Location { line, column },
            what: "there is no column passengers".into(),
            help: help.map(Into::into),
        }
    }

    #[test]
    fn an_error_shows_its_line_with_carets_under_the_word() {
        let text = "SELECT\n\tsum(passengers) AS n\nFROM t";
        let shown = render(
            "error",
            "jobs/a.sql",
            text,
            &[error(2, 6, Some("write passenger_count"))],
            false,
        );
        let expected = "error: there is no column passengers\n --> jobs/a.sql:2:6\n  |\n2 | \tsum(passengers) AS n\n  | \t    ^^^^^^^^^^\n  = help: write passenger_count\n\n";
        assert_eq!(shown, expected);
    }

    #[test]
    fn a_place_behind_the_text_is_no_panic_and_colour_is_only_paint() {
        let text = "SELECT";
        for (line, column) in [(1, 7), (1, 99), (2, 1), (0, 0), (u64::MAX, u64::MAX)] {
            let errors = [error(line, column, None)];
            let plain = render("warning", "-", text, &errors, false);
            assert!(plain.starts_with("warning: there is no column"));
            let painted = render("warning", "-", text, &errors, true);
            let mut bare = painted.clone();
            for code in [RED, YELLOW, BLUE, BOLD, PLAIN] {
                bare = bare.replace(code, "");
            }
            assert_eq!(bare, plain);
            assert_ne!(painted, plain);
        }
    }
}
