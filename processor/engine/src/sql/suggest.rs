//! "Did you mean …?"

/// The most names that are listed.
const MOST_LISTED: usize = 40;
/// Longer names are compared as a whole only: a slip is not looked for.
const LONGEST: usize = 100;

/// The help for a name that is not known: the nearest of the known ones, or all of them.
pub(crate) fn help<'a>(wrong: &str, known: impl IntoIterator<Item = &'a str>) -> String {
    let mut known: Vec<&str> = known.into_iter().collect();
    known.sort_unstable();
    known.dedup();
    let wrong = wrong.to_lowercase();
    let nearest = known
        .iter()
        .filter(|name| wrong.len() <= LONGEST && name.len() <= LONGEST)
        .map(|name| (distance(&wrong, &name.to_lowercase()), *name))
        .min()
        .filter(|(distance, name)| {
            *distance <= 1 + name.chars().count().min(wrong.chars().count()) / 4
        });
    match nearest {
        Some((_, name)) => format!("did you mean {name}?"),
        None if known.is_empty() => "there are none".to_owned(),
        None if known.len() > MOST_LISTED => {
            let more = known.len() - MOST_LISTED;
            format!(
                "there are: {} and {more} more",
                known[..MOST_LISTED].join(", ")
            )
        }
        None => format!("there are: {}", known.join(", ")),
    }
}

/// How many characters must be put in, taken out, replaced or swapped with their neighbour.
fn distance(a: &str, b: &str) -> usize {
    let (a, b): (Vec<char>, Vec<char>) = (a.chars().collect(), b.chars().collect());
    let mut rows = vec![(0..=b.len()).collect::<Vec<usize>>()];
    for i in 1..=a.len() {
        let mut row = vec![i];
        for j in 1..=b.len() {
            let change = usize::from(a[i - 1] != b[j - 1]);
            let mut cost = (rows[i - 1][j] + 1)
                .min(row[j - 1] + 1)
                .min(rows[i - 1][j - 1] + change);
            if i > 1 && j > 1 && a[i - 1] == b[j - 2] && a[i - 2] == b[j - 1] {
                cost = cost.min(rows[i - 2][j - 2] + 1);
            }
            row.push(cost);
        }
        rows.push(row);
    }
    rows[a.len()][b.len()]
}

#[cfg(test)]
mod tests {
    use super::{distance, help};

    #[test]
    fn a_slip_of_the_keyboard_is_recognised() {
        assert_eq!(distance("pikcup", "pickup"), 1);
        assert_eq!(distance("", "abc"), 3);
        assert_eq!(help("topik", ["topic", "key"]), "did you mean topic?");
        assert_eq!(help("colour", ["topic", "key"]), "there are: key, topic");
    }
}
