//! The catalogue in the code, the file that other people's dashboards are checked against, and the
//! page for people: one and the same.

use std::fmt::Write as _;
use std::path::Path;

use wharf::metrics::{CATALOGUE, Kind, Of, catalogue_document};

#[track_caller]
fn agrees(name: &str, text: &str) {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("docs").join(name);
    if std::env::var_os("WHARF_BLESS").is_some() {
        std::fs::write(&path, text).unwrap();
    }
    let committed = std::fs::read_to_string(&path).unwrap_or_default();
    assert_eq!(committed, text, "WHARF_BLESS=1 cargo test rewrites it");
}

#[test]
fn the_committed_catalogue_is_that_of_the_code() {
    let document = catalogue_document();
    let rows: Vec<String> = document.as_array().unwrap().iter().map(ToString::to_string).collect();
    agrees("metrics.json", &format!("[\n{}\n]\n", rows.join(",\n")));
}

const HEAD: &str = "\
# Metrics

`GET /metrics` on the control socket, and over TCP where services.yaml says so:

```yaml
metrics: { listen: \"127.0.0.1:9464\" }
```

Over TCP there is nothing but that: every other path and verb is refused by name. An address that other
machines can reach is refused unless `allow_remote: true` stands beside it, and then `wharf check` says
who can read along. A reload moves the listener and restarts nothing; an address that cannot be
listened at leaves the manager degraded (`wharf status`) and is tried again until it can.

Scrapes are bounded: those that come at the same time share one look at the processes, at most four are
being told at once, and a client that does not read loses its answer after 30 seconds.

The text is Prometheus's format 0.0.4. The table below is made from the code (`src/metrics/catalogue.rs`)
and compared with it by a test; `docs/metrics.json` is the same for programs. What a metric costs is
its cardinality: a plain service has about 60 series and a port 17 more, each replica adds at most 4. No
label ever holds a process number, an argument or an exit code, and the series of a service that was
removed are removed.

Counters are the manager's own and start at 0 with each of its lives (an upgrade, a crash), which
`rate()` and `increase()` know how to take; they do not notice restarts of services. The
journal, which outlives managers, is the truth about the past: `wharf exits`. Both are fed by the same
exit record, so they cannot disagree. What is read from `/proc` (CPU, memory, descriptors) is read
when somebody scrapes, away from the loop that supervises.

";

#[test]
fn the_page_for_people_is_that_of_the_code() {
    let mut page = HEAD.to_owned();
    page.push_str("| metric | type | labels | series | what it says |\n|---|---|---|---|---|\n");
    for metric in CATALOGUE {
        let labels: Vec<_> = metric.labels.iter().map(|label| format!("`{label}`")).collect();
        let kind = metric.kind.as_str();
        let (name, labels) = (metric.name, labels.join(" "));
        let (series, help) = (metric.cardinality(), metric.help);
        writeln!(page, "| `{name}` | {kind} | {labels} | {series} | {help} |").unwrap();
    }
    agrees("METRICS.md", &page);
}

/// The rule of section "Metrics" in the conventions: few series, of which the formula is known.
#[test]
fn every_series_is_accounted_for() {
    for metric in CATALOGUE {
        let first = metric.labels.first().copied();
        let (of_service, of_replica) = (Some("service"), metric.labels.get(1) == Some(&"replica"));
        match metric.of {
            Of::Manager => assert_ne!(first, of_service, "{}", metric.name),
            Of::Service | Of::Port => {
                assert!(first == of_service && !of_replica, "{}", metric.name);
            }
            Of::Replica => assert!(first == of_service && of_replica, "{}", metric.name),
        }
        if let Kind::Histogram(bounds) = metric.kind {
            assert!(bounds.is_sorted() && bounds.len() <= 8, "{}", metric.name);
        }
    }
}
