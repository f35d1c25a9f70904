//! Texts that are made to hurt: long ones, deep ones. Each has an answer, on the stack that a thread has.

use super::support::*;

/// A job with an expression in its WHERE, its SELECT list, its keys and its HAVING, one at a time.
fn jobs(expression: &str) -> [String; 4] {
    let query = |select: &str, filter: &str, more: &str| {
        job(
            "window_start, vendor_id",
            &format!(
                "SELECT window_start, vendor_id, count(*) AS n{select} FROM TUMBLE(trips, pickup_at, INTERVAL '1 hour')
                 {filter} GROUP BY window_start, vendor_id{more}"
            ),
        )
    };
    [
        query("", &format!("WHERE ({expression}) IS NOT NULL"), ""),
        query(&format!(", max({expression}) AS m"), "", ""),
        query("", "", &format!(", {expression}")),
        query("", "", &format!(" HAVING max({expression}) IS NOT NULL")),
    ]
}

/// An expression of some depth.
fn shapes(depth: usize) -> Vec<(&'static str, String)> {
    let nested = |open: &str, inner: &str, close: &str| {
        format!("{}{inner}{}", open.repeat(depth), close.repeat(depth))
    };
    vec![
        ("sums", format!("vendor_id{}", " + vendor_id".repeat(depth))),
        (
            "ors",
            format!("vendor_id = 1{}", " OR vendor_id = 2".repeat(depth)),
        ),
        (
            "ands",
            format!("true{}", " AND vendor_id > 2".repeat(depth)),
        ),
        ("texts", format!("id{}", " || id".repeat(depth))),
        ("casts", format!("vendor_id{}", "::bigint".repeat(depth))),
        ("is null", format!("vendor_id{}", " IS NULL".repeat(depth))),
        (
            "zones",
            format!("pickup_at{}", " AT TIME ZONE 'UTC'".repeat(depth)),
        ),
        ("places", format!("id{}", "[1]".repeat(depth))),
        ("parentheses", nested("(", "vendor_id", ")")),
        ("calls", nested("abs(", "vendor_id", ")")),
        ("lists", nested("[", "vendor_id", "]")),
        ("structs", nested("{a: ", "vendor_id", "}")),
        ("nots", nested("NOT ", "true", "")),
        ("minus", nested("- ", "vendor_id", "")),
        ("cases", nested("CASE WHEN true THEN ", "vendor_id", " END")),
        ("casts by name", nested("CAST(", "vendor_id", " AS bigint)")),
        ("subqueries", nested("(SELECT ", "1", ")")),
        ("in", nested("vendor_id IN (", "1", ")")),
        ("intervals", nested("INTERVAL ", "'1 day'", "")),
        ("lambdas", nested("x -> ", "x", "")),
        ("exists", nested("EXISTS (SELECT ", "1", ")")),
        ("between", nested("1 BETWEEN 0 AND ", "1", "")),
        (
            "types",
            format!("CAST(id AS {})", nested("ARRAY<", "INT", ">")),
        ),
    ]
}

#[test]
fn deep_expressions_are_planned_or_refused_and_never_overflow_the_stack() {
    for depth in [1, 5, 10, 20, 40, 60, 95, 130, 198, 390, 1_000, 20_000] {
        for (shape, expression) in shapes(depth) {
            for (place, text) in jobs(&expression).into_iter().enumerate() {
                // A test that overflows the stack prints this.
                println!("{shape}, {depth} deep, place {place}");
                let answer = planned(&text, &trips_schema());
                assert!(depth < 1_000 || answer.is_err(), "{shape}, {depth} deep");
            }
        }
    }
}

#[test]
fn chains_of_a_length_that_people_write_are_planned() {
    let planned_at = |shape: &str, depth: usize| {
        let shapes = shapes(depth);
        let (_, expression) = shapes.iter().find(|(name, _)| *name == shape).unwrap();
        planned(&jobs(expression)[0], &trips_schema())
            .unwrap_or_else(|errors| panic!("{shape}: {errors:?}"));
    };
    planned_at("ors", 150);
    planned_at("sums", 300);
    planned_at("parentheses", 15);
    planned_at("cases", 10);
    let listed: Vec<String> = (0..3_000).map(|number| number.to_string()).collect();
    let expression = format!("vendor_id IN ({})", listed.join(", "));
    planned(&jobs(&expression)[0], &trips_schema()).unwrap();
}

#[test]
fn long_and_deep_texts_of_other_kinds_have_an_answer() {
    let nested = |open: &str, inner: &str, close: &str, depth: usize| {
        format!("{}{inner}{}", open.repeat(depth), close.repeat(depth))
    };
    for depth in [5, 10, 15, 22, 40, 400, 3_000] {
        let from = |from: &str| job("a", &format!("SELECT vendor_id AS a FROM {from}"));
        for text in [
            from(&nested("(", "trips", ")", depth)),
            from(&nested("(SELECT * FROM ", "trips", ")", depth)),
            from(&nested("(trips JOIN ", "trips", ")", depth)),
            from(&format!("trips{}", " JOIN trips".repeat(depth))),
            from(&format!(
                "trips{}",
                " UNION SELECT a, b FROM trips".repeat(depth)
            )),
            from(&format!("trips{}", ", trips".repeat(depth))),
            job(
                "a",
                &nested("(", "SELECT vendor_id AS a FROM trips", ")", depth),
            ),
            job(
                "a",
                &format!("{} SELECT 1", nested("WITH a AS (", "SELECT 1", ")", depth)),
            ),
            format!("{};", "(".repeat(depth)),
            nested("CREATE SOURCE a WITH (", "a = 'b'", ");", depth),
            format!(
                "CREATE SOURCE a (b {}) WITH (topic = 'a')",
                nested("ARRAY<", "INT", ">", depth)
            ),
            "INSERT INTO a SELECT 1;".repeat(depth),
            format!("-- {}", "a".repeat(depth * 40)),
            nested("/*", "", "*/", depth),
            "SELECT".repeat(depth),
            from(&format!("trips WHERE {}", "a".repeat(depth * 40))),
            job("a", &format!("SELECT {} FROM trips", "b, ".repeat(depth))),
            job(
                "a",
                &format!("SELECT {} vendor_id AS a FROM trips", "b, ".repeat(depth)),
            ),
        ] {
            let answer = planned(&text, &trips_schema());
            let text = &text[..200.min(text.len())];
            assert!(depth < 400 || answer.is_err(), "{text}");
        }
    }
    let long = " ".repeat(200 * 1024);
    let errors = planned(&long, &trips_schema()).unwrap_err();
    assert!(errors[0].what.contains("204800 bytes"), "{}", errors[0]);
}
