//! The ledger for people.

use std::io::{self, Write};

use super::{Check, Ledger};

/// Prints the ledger, in colour if asked.
pub fn print(ledger: &Ledger, colour: bool, out: &mut impl Write) -> io::Result<()> {
    let producer = &ledger.producer;
    writeln!(out, "Ledger")?;
    line(
        out,
        "producer",
        &[
            ("read", producer.read),
            ("rejected", producer.rejected),
            ("delivered", producer.delivered),
        ],
    )?;
    for query in &ledger.queries {
        let counts = &query.counts;
        line(
            out,
            &counts.query,
            &[
                ("taken", counts.rows_in),
                ("filtered", counts.filtered),
                ("dead", counts.dead + counts.undecodable),
                ("merged", counts.merged),
                ("late", counts.late),
                ("waiting", query.waiting + query.in_flight),
            ],
        )?;
        line(
            out,
            "",
            &[
                ("windows closed", counts.closed),
                ("results", counts.emitted),
            ],
        )?;
    }
    if let Some(lake) = &ledger.lake {
        line(
            out,
            "lake",
            &[
                ("rows", lake.rows_in_files),
                ("files", lake.files_found),
                ("dead", lake.dead),
                ("waiting", lake.waiting),
            ],
        )?;
    }
    if let Some(documents) = &ledger.documents {
        line(
            out,
            "documents",
            &[
                ("documents", documents.documents),
                ("dead", documents.dead),
                ("waiting", documents.waiting),
            ],
        )?;
    }
    for check in &ledger.checks {
        print_check(check, colour, out)?;
    }
    let (verdict, code) = if ledger.balanced {
        ("balanced: no row is missing, none is counted twice", "32")
    } else {
        ("NOT BALANCED: rows are missing or counted twice", "31")
    };
    writeln!(out, "{}", painted(verdict, code, colour))
}

fn line(out: &mut impl Write, part: &str, figures: &[(&str, u64)]) -> io::Result<()> {
    write!(out, "  {part:<18}")?;
    for (name, value) in figures {
        write!(out, " {name} {}", thousands(*value))?;
    }
    writeln!(out)
}

fn print_check(check: &Check, colour: bool, out: &mut impl Write) -> io::Result<()> {
    let mark = if check.holds {
        painted("ok", "32", colour)
    } else {
        painted("WRONG", "31", colour)
    };
    let (left, right) = (thousands(check.left), thousands(check.right));
    writeln!(out, "  {mark} {}: {left} = {right}", check.says)
}

fn painted(text: &str, code: &str, colour: bool) -> String {
    if colour {
        format!("\x1b[{code}m{text}\x1b[0m")
    } else {
        text.to_owned()
    }
}

/// A number with commas between its thousands.
pub fn thousands(value: u64) -> String {
    let digits = value.to_string();
    let mut text = String::with_capacity(digits.len() + digits.len() / 3);
    for (place, digit) in digits.chars().enumerate() {
        if place > 0 && (digits.len() - place).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

#[cfg(test)]
mod tests {
    use super::thousands;

    #[test]
    fn thousands_are_set_apart() {
        assert_eq!(thousands(0), "0");
        assert_eq!(thousands(999), "999");
        assert_eq!(thousands(1000), "1,000");
        assert_eq!(thousands(1234567), "1,234,567");
    }
}
