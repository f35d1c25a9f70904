//! Where the parts of a graph stand in a drawing: in layers from left to right, each as near as can be to what it is
//! joined with.

use std::collections::BTreeMap;

use super::{Edge, Node};

/// How wide a part is drawn, in pixels.
pub(super) const WIDTH: f64 = 250.0;
/// Between two layers.
const GAP_X: f64 = 70.0;
/// Between two parts of a layer.
const GAP_Y: f64 = 26.0;
/// Around all.
pub(super) const MARGIN: f64 = 24.0;
/// How often parts are moved to what they are joined with, there and back.
const SWEEPS: usize = 4;

/// Where a part stands, in pixels from the top left corner.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Place {
    pub x: f64,
    pub y: f64,
    pub height: f64,
}

impl Place {
    pub(super) fn middle(&self) -> f64 {
        self.y + self.height / 2.0
    }
}

/// The layer of each node by its id: one further than the furthest that it reads from.
pub(super) fn layers<'a>(nodes: &'a [Node], edges: &[Edge]) -> BTreeMap<&'a str, usize> {
    let mut layers: BTreeMap<&str, usize> =
        nodes.iter().map(|node| (node.id.as_str(), 0)).collect();
    // No job reads its own results, so that this comes to an end; a path has no more steps than there are nodes.
    for _ in 0..nodes.len() {
        let mut moved = false;
        for edge in edges {
            let behind = layers.get(edge.from.as_str()).map_or(0, |layer| layer + 1);
            if let Some(layer) = layers.get_mut(edge.to.as_str())
                && *layer < behind
            {
                *layer = behind;
                moved = true;
            }
        }
        if !moved {
            break;
        }
    }
    layers
}

/// Where each node stands, whose heights are given in the nodes' order; and how wide and high all of it is.
pub(super) fn places(nodes: &[Node], edges: &[Edge], heights: &[f64]) -> (Vec<Place>, f64, f64) {
    let layers = layers(nodes, edges);
    let layer = |node: &Node| layers.get(node.id.as_str()).copied().unwrap_or(0);
    let last = nodes.iter().map(layer).max().unwrap_or(0);
    let index: BTreeMap<&str, usize> = nodes
        .iter()
        .enumerate()
        .map(|(place, node)| (node.id.as_str(), place))
        .collect();
    let joined = |place: usize, before: bool| -> Vec<usize> {
        let id = nodes[place].id.as_str();
        let others = edges.iter().filter_map(|edge| match before {
            true if edge.to == id => Some(edge.from.as_str()),
            false if edge.from == id => Some(edge.to.as_str()),
            _ => None,
        });
        others.filter_map(|id| index.get(id).copied()).collect()
    };
    let mut places: Vec<Place> = nodes
        .iter()
        .zip(heights)
        .map(|(node, height)| Place {
            x: MARGIN + layer(node) as f64 * (WIDTH + GAP_X),
            y: 0.0,
            height: *height,
        })
        .collect();
    let columns: Vec<Vec<usize>> = (0..=last)
        .map(|at| {
            (0..nodes.len())
                .filter(|place| layer(&nodes[*place]) == at)
                .collect()
        })
        .collect();
    for column in &columns {
        pack(column, &mut places, &|_, _| None);
    }
    for _ in 0..SWEEPS {
        for column in &columns {
            pack(column, &mut places, &|places, place| {
                mean(places, &joined(place, true))
            });
        }
        for column in columns.iter().rev() {
            pack(column, &mut places, &|places, place| {
                mean(places, &joined(place, false))
            });
        }
    }
    let top = places
        .iter()
        .map(|place| place.y)
        .fold(f64::INFINITY, f64::min);
    for place in &mut places {
        place.y += MARGIN - top;
    }
    let width = MARGIN * 2.0 + (last + 1) as f64 * (WIDTH + GAP_X) - GAP_X;
    let height = places
        .iter()
        .map(|place| place.y + place.height)
        .fold(0.0, f64::max);
    (places, width, height + MARGIN)
}

fn mean(places: &[Place], of: &[usize]) -> Option<f64> {
    let sum: f64 = of
        .iter()
        .filter_map(|place| places.get(*place))
        .map(Place::middle)
        .sum();
    (!of.is_empty()).then(|| sum / of.len() as f64)
}

/// Puts a column's nodes where they want to be, in the order in which they want to, without overlap.
fn pack(column: &[usize], places: &mut [Place], wanted: &dyn Fn(&[Place], usize) -> Option<f64>) {
    let mut order: Vec<(f64, usize)> = column
        .iter()
        .map(|place| {
            let middle = wanted(places, *place).unwrap_or_else(|| places[*place].middle());
            (middle, *place)
        })
        .collect();
    order.sort_by(|a, b| a.0.total_cmp(&b.0));
    let mut free = f64::NEG_INFINITY;
    let mut pushed = 0.0;
    for (middle, place) in &order {
        let at = &mut places[*place];
        let want = middle - at.height / 2.0;
        at.y = want.max(free);
        pushed += at.y - want;
        free = at.y + at.height + GAP_Y;
    }
    // Those that were pushed down have their share above as well.
    let shift = pushed / order.len().max(1) as f64;
    for (_, place) in &order {
        places[*place].y -= shift;
    }
}

#[cfg(test)]
mod tests {
    use super::super::{Part, PartialsPart};
    use super::*;

    fn graph(names: &[&str], edges: &[(&str, &str)]) -> (Vec<Node>, Vec<Edge>) {
        let node = |name: &&str| Node {
            id: (*name).into(),
            name: (*name).into(),
            part: Part::Partials(PartialsPart { shards: 1, lag: 0 }),
        };
        let edge = |(from, to): &(&str, &str)| Edge {
            from: (*from).into(),
            to: (*to).into(),
        };
        (
            names.iter().map(node).collect(),
            edges.iter().map(edge).collect(),
        )
    }

    #[test]
    fn every_edge_goes_to_the_right_and_nothing_overlaps() {
        let (nodes, edges) = graph(
            &["source", "a", "b", "c", "topic", "d", "far", "alone"],
            &[
                ("source", "a"),
                ("source", "b"),
                ("source", "c"),
                ("a", "topic"),
                ("topic", "d"),
                ("d", "far"),
                ("b", "far"),
                ("c", "far"),
            ],
        );
        let heights = [60.0, 100.0, 40.0, 200.0, 50.0, 80.0, 90.0, 30.0];
        let (places, width, height) = places(&nodes, &edges, &heights);
        let at = |id: &str| {
            let found = nodes.iter().position(|node| node.id == id);
            found.map(|place| places[place])
        };
        for edge in &edges {
            let (from, to) = (at(&edge.from), at(&edge.to));
            assert!(
                from.zip(to).is_some_and(|(from, to)| from.x + WIDTH < to.x),
                "{edge:?}"
            );
        }
        for (one, a) in places.iter().enumerate() {
            assert!(a.x >= MARGIN && a.y >= MARGIN - 1e-9, "{a:?}");
            assert!(
                a.x + WIDTH + MARGIN <= width + 1e-9 && a.y + a.height + MARGIN <= height + 1e-9
            );
            for b in &places[one + 1..] {
                let apart = a.x != b.x || a.y + a.height < b.y || b.y + b.height < a.y;
                assert!(apart, "{a:?} and {b:?}");
            }
        }
    }
}
