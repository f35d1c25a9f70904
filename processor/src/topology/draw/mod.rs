//! The drawing of a job's graph, as SVG.

mod words;

use std::fmt::Write;

use super::layout::{Place, WIDTH, places};
use super::{Node, Topology};
use words::drawn;

/// The height of a line of text, in pixels.
const LINE: f64 = 17.0;
/// What a part's head takes.
const HEAD: f64 = 42.0;
/// What a row of squares takes, and a square with its distance to the next.
const SQUARE: f64 = 15.0;
/// How many characters of a line, and of a name, have room.
const CHARACTERS: usize = 35;
const NAME_CHARACTERS: usize = 28;
/// How often the page draws anew, in seconds.
const REFRESH: u32 = 3;

const STYLE: &str = "
    svg { background: #fff; font: 12px system-ui, -apple-system, 'Segoe UI', sans-serif; }
    .part { fill: #f8fafc; stroke: #cbd5e1; }
    .topic .bar { fill: #0f766e } .scan .bar { fill: #1d4ed8 } .partials .bar { fill: #64748b } .merge .bar { fill: #7c3aed }
    .trouble .part { stroke: #dc2626; stroke-width: 2 }
    .kind { fill: #64748b; font-size: 10.5px; letter-spacing: .06em; text-transform: uppercase }
    .name { fill: #0f172a; font-size: 14px; font-weight: 600 }
    .line { fill: #334155 }
    .warn { fill: #b91c1c }
    .edge { fill: none; stroke: #94a3b8; stroke-width: 1.5 }
    .here { fill: #0f172a } .there { fill: #fff; stroke: #94a3b8 } .waits { fill: #f59e0b } .bad { fill: #dc2626 }
    .note { fill: #64748b }
";

/// A part as it is drawn.
struct Drawn {
    class: &'static str,
    kind: &'static str,
    lines: Vec<(&'static str, String)>,
    squares: Vec<(&'static str, String)>,
    trouble: bool,
}

impl Drawn {
    fn height(&self) -> f64 {
        let squares = match self.squares.is_empty() {
            true => 0.0,
            false => SQUARE * self.rows_of_squares() as f64 + 6.0,
        };
        HEAD + self.lines.len() as f64 * LINE + squares + 8.0
    }

    fn rows_of_squares(&self) -> usize {
        self.squares.len().div_ceil(squares_in_a_row())
    }
}

fn squares_in_a_row() -> usize {
    ((WIDTH - 24.0) / SQUARE) as usize
}

/// The drawing.
pub(super) fn svg(topology: &Topology) -> String {
    let drawn: Vec<Drawn> = topology.nodes.iter().map(drawn).collect();
    let heights: Vec<f64> = drawn.iter().map(Drawn::height).collect();
    let (places, width, height) = places(&topology.nodes, &topology.edges, &heights);
    let foot = 30.0;
    let mut out = String::new();
    // Writing to a string never fails.
    let _ = write!(
        out,
        r#"<svg xmlns="http://www.w3.org/2000/svg" width="{width}" height="{:.0}" viewBox="0 0 {width} {:.0}" role="img" aria-label="The job {}">
<style>{STYLE}</style>
"#,
        height + foot,
        height + foot,
        escaped(&topology.application_id)
    );
    for edge in &topology.edges {
        let at = |id: &str| {
            let place = topology.nodes.iter().position(|node| node.id == id)?;
            places.get(place)
        };
        if let (Some(from), Some(to)) = (at(&edge.from), at(&edge.to)) {
            line(&mut out, from, to);
        }
    }
    for ((node, drawn), place) in topology.nodes.iter().zip(&drawn).zip(&places) {
        part(&mut out, node, drawn, place);
    }
    let note = match (&topology.log_error, &topology.log_as_of) {
        (Some(error), _) => (" warn", format!("the log can't be asked: {error}")),
        (None, Some(at)) => ("", format!("as of {at}")),
        (None, None) => ("", String::new()),
    };
    let _ = write!(
        out,
        "<text class=\"note{}\" x=\"24\" y=\"{:.0}\">application {} · filled squares: here, hollow: with other members or nobody, amber: paused or restoring, red: stuck · {}</text>\n</svg>\n",
        note.0,
        height + 12.0,
        escaped(&topology.application_id),
        escaped(&note.1)
    );
    out
}

/// A page that shows the drawing, anew every few seconds.
pub(super) fn html(topology: &Topology) -> String {
    format!(
        "<!doctype html>\n<html lang=\"en\">\n<head>\n<meta charset=\"utf-8\">\n<meta http-equiv=\"refresh\" content=\"{REFRESH}\">\n<title>{} · topology</title>\n<style>body {{ margin: 0; background: #fff }} svg {{ max-width: 100%; height: auto }}</style>\n</head>\n<body>\n{}</body>\n</html>\n",
        escaped(&topology.application_id),
        svg(topology)
    )
}

fn line(out: &mut String, from: &Place, to: &Place) {
    let (x1, y1, x2, y2) = (from.x + WIDTH, from.middle(), to.x, to.middle());
    let bend = (x2 - x1) / 2.0;
    let _ = writeln!(
        out,
        "<path class=\"edge\" d=\"M{x1:.1} {y1:.1} C{:.1} {y1:.1} {:.1} {y2:.1} {:.1} {y2:.1}\"/><path d=\"M{x2:.1} {y2:.1} l-8 -4 v8 z\" fill=\"#94a3b8\"/>",
        x1 + bend,
        x2 - bend,
        x2 - 6.0
    );
}

fn part(out: &mut String, node: &Node, drawn: &Drawn, place: &Place) {
    let (x, y) = (place.x, place.y);
    let trouble = if drawn.trouble { " trouble" } else { "" };
    let _ = writeln!(
        out,
        "<g class=\"{}{trouble}\"><rect class=\"part\" x=\"{x:.1}\" y=\"{y:.1}\" width=\"{WIDTH}\" height=\"{:.1}\" rx=\"6\"/><rect class=\"bar\" x=\"{x:.1}\" y=\"{:.1}\" width=\"4\" height=\"{:.1}\" rx=\"2\"/>",
        drawn.class,
        place.height,
        y + 6.0,
        place.height - 12.0,
    );
    text(out, "kind", x + 14.0, y + 17.0, drawn.kind, CHARACTERS);
    text(out, "name", x + 14.0, y + 34.0, &node.name, NAME_CHARACTERS);
    let mut at = y + HEAD;
    for (class, line) in &drawn.lines {
        at += LINE;
        text(out, class, x + 14.0, at - 4.0, line, CHARACTERS);
    }
    at += 6.0;
    for (place, (class, title)) in drawn.squares.iter().enumerate() {
        let column = (place % squares_in_a_row()) as f64;
        let row = (place / squares_in_a_row()) as f64;
        let _ = writeln!(
            out,
            "<rect class=\"{class}\" x=\"{:.1}\" y=\"{:.1}\" width=\"11\" height=\"11\" rx=\"2\"><title>{}</title></rect>",
            x + 14.0 + column * SQUARE,
            at + row * SQUARE,
            escaped(title)
        );
    }
    out.push_str("</g>\n");
}

fn text(out: &mut String, class: &str, x: f64, y: f64, text: &str, room: usize) {
    let shown: String = match text.chars().count() > room {
        true => text.chars().take(room - 1).chain(['…']).collect(),
        false => text.into(),
    };
    let _ = writeln!(
        out,
        "<text class=\"{class}\" x=\"{x:.1}\" y=\"{y:.1}\">{}<title>{}</title></text>",
        escaped(&shown),
        escaped(text)
    );
}

/// Text as it may stand in XML.
fn escaped(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for letter in text.chars() {
        match letter {
            '<' => out.push_str("&lt;"),
            '>' => out.push_str("&gt;"),
            '&' => out.push_str("&amp;"),
            '"' => out.push_str("&quot;"),
            // What XML has no place for.
            control if control.is_control() => out.push(' '),
            other => out.push(other),
        }
    }
    out
}
