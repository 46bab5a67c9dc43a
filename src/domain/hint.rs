//! What to say of a name that nobody knows.

/// A hint that ends a message about an unknown name: the nearest known one if it is near, else all of them.
pub fn hint<'a>(wrong: &str, known: impl IntoIterator<Item = &'a str> + Clone) -> String {
    let nearest = known.clone().into_iter().map(|name| (distance(wrong, name), name)).min();
    match nearest {
        Some((steps, name)) if steps <= 1 + wrong.len() / 4 => format!("did you mean \"{name}\"?"),
        Some(_) => format!("known are {}", known.into_iter().collect::<Vec<_>>().join(", ")),
        None => "there is nothing to choose from".to_owned(),
    }
}

/// Levenshtein distance in characters.
fn distance(left: &str, right: &str) -> usize {
    let mut row: Vec<usize> = (0..=right.chars().count()).collect();
    for (i, a) in left.chars().enumerate() {
        let mut diagonal = i;
        let mut before = i + 1;
        for (cell, b) in row.iter_mut().skip(1).zip(right.chars()) {
            let cost = (diagonal + usize::from(a != b)).min(before + 1).min(*cell + 1);
            diagonal = std::mem::replace(cell, cost);
            before = cost;
        }
        if let Some(first) = row.first_mut() {
            *first = i + 1;
        }
    }
    row.last().copied().unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn distance_counts_edits() {
        for (left, right, edits) in
            [("", "", 0), ("abc", "", 3), ("", "ab", 2), ("kitten", "sitting", 3), ("a", "a", 0)]
        {
            assert_eq!(distance(left, right), edits, "{left} {right}");
        }
    }

    #[test]
    fn a_near_name_is_suggested_and_a_far_one_gets_the_list() {
        let known = ["least-request", "random"];
        assert_eq!(hint("least-requests", known), "did you mean \"least-request\"?");
        assert_eq!(hint("prefix-cache", known), "known are least-request, random");
    }
}
