//! Takes the names out of a PromQL expression: metrics with their matchers, and the labels of `by`.
//! Whether an expression is valid is promtool's matter.

/// One use of a metric.
#[derive(Debug, PartialEq)]
pub(crate) struct Selector {
    pub(crate) metric: String,
    /// Label, operator and value of each matcher.
    pub(crate) matchers: Vec<(String, String, String)>,
    /// What stands in square brackets behind it, if anything does.
    pub(crate) range: Option<String>,
    /// The function or aggregation whose parenthesis opens right before it.
    pub(crate) inside: String,
}

fn is_name(c: char) -> bool {
    c.is_ascii_alphanumeric() || c == '_' || c == ':'
}

/// Every use of a metric whose name starts with one of `prefixes`, or is one of them.
pub(crate) fn selectors(expression: &str) -> Vec<Selector> {
    let mut found = Vec::new();
    let mut at = 0;
    while let Some(start) = expression[at..].find(is_name).map(|next| at + next) {
        let length = expression[start..].find(|c| !is_name(c));
        let end = length.map_or(expression.len(), |length| start + length);
        let name = &expression[start..end];
        at = end;
        if name.starts_with("wharf_") || name.contains(':') || name == "up" {
            let (selector, after) = read_selector(expression, start, end);
            found.push(selector);
            at = after;
        } else if let Some(past) = quoted(expression, end) {
            at = past;
        }
    }
    found
}

/// Where a quoted text ends that begins at `at`, possibly behind an operator.
fn quoted(expression: &str, at: usize) -> Option<usize> {
    let rest = expression[at..].trim_start_matches(['=', '~', '!', ' ']);
    let inside = rest.strip_prefix('"')?;
    let begin = expression.len() - inside.len();
    Some(begin + inside.find('"')? + 1)
}

fn read_selector(expression: &str, start: usize, end: usize) -> (Selector, usize) {
    let mut after = end;
    let mut matchers = Vec::new();
    if expression[end..].starts_with('{') {
        let close = end + expression[end..].find('}').unwrap();
        for matcher in expression[end + 1..close].split(',') {
            let label: String = matcher.trim().chars().take_while(|c| is_name(*c)).collect();
            let rest = matcher.trim()[label.len()..].trim();
            let (operator, value) = rest.split_at(rest.find('"').unwrap());
            let value = value.trim_matches('"').to_owned();
            matchers.push((label, operator.to_owned(), value));
        }
        after = close + 1;
    }
    let mut range = None;
    if let Some(inside) = expression[after..].strip_prefix('[') {
        let length = inside.find(']').unwrap();
        range = Some(inside[..length].to_owned());
        after += length + 2;
    }
    let before = expression[..start].trim_end().strip_suffix('(').unwrap_or("");
    let from = before.rfind(|c| !is_name(c)).map_or(0, |place| place + 1);
    let inside = before[from..].to_owned();
    (Selector { metric: expression[start..end].to_owned(), matchers, range, inside }, after)
}

/// The labels that `by (...)` keeps, over all uses of it.
pub(crate) fn kept_labels(expression: &str) -> Vec<String> {
    let mut labels = Vec::new();
    for part in expression.split(" by (").skip(1) {
        let inside = part.split(')').next().unwrap();
        labels.extend(inside.split(',').map(|label| label.trim().to_owned()));
    }
    labels
}

/// The labels that a legend or an annotation names, as `{{x}}` or `{{ $labels.x }}`.
pub(crate) fn named_labels(template: &str) -> Vec<String> {
    let mut labels = Vec::new();
    for part in template.split("{{").skip(1) {
        let inside = part.split("}}").next().unwrap().trim();
        let label = inside.strip_prefix("$labels.").unwrap_or(inside);
        if label.chars().all(is_name) {
            labels.push(label.to_owned());
        }
    }
    labels
}

#[test]
fn selectors_are_found_with_all_that_belongs_to_them() {
    let found =
        selectors(r#"sum by (le) (rate(wharf_a_bucket{job=~"$job", kind!="up"}[5m])) / up + x:y"#);
    let matcher = |label: &str, operator: &str, value: &str| {
        (label.to_owned(), operator.to_owned(), value.to_owned())
    };
    assert_eq!(found.len(), 3, "{found:?}");
    assert_eq!(
        found[0],
        Selector {
            metric: "wharf_a_bucket".to_owned(),
            matchers: vec![matcher("job", "=~", "$job"), matcher("kind", "!=", "up")],
            range: Some("5m".to_owned()),
            inside: "rate".to_owned(),
        }
    );
    assert_eq!((found[1].metric.as_str(), found[2].metric.as_str()), ("up", "x:y"));
    assert_eq!(kept_labels("sum by (a, b) (x) / max by (c) (y)"), ["a", "b", "c"]);
    assert_eq!(named_labels("{{a}} of {{ $labels.b }}, {{ $value | humanize }}"), ["a", "b"]);
}
