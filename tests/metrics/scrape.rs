//! How tests scrape and read a scrape; and that a real one is what the catalogue says.

use std::collections::{BTreeMap, BTreeSet};
use std::io::Write;
use std::process::{Command, Stdio};

use wharf::exit::Reason;
use wharf::metrics::{CATALOGUE, Kind, Of};

use crate::support::{Wharf, until};

/// The values of a scrape by series, as they are written.
pub(crate) struct Scrape {
    pub(crate) text: String,
    pub(crate) values: BTreeMap<String, f64>,
}

impl Scrape {
    pub(crate) fn of(wharf: &Wharf) -> Self {
        let (status, body) = wharf.http("GET", "/metrics", b"").unwrap();
        assert_eq!(status, 200, "{body}");
        Self::read(&unchunked(&body))
    }

    pub(crate) fn read(text: &str) -> Self {
        let sample = |line: &str| {
            // A label may hold spaces; the value is behind the last one.
            let (series, value) = line.rsplit_once(' ').unwrap();
            (series.to_owned(), value.parse().unwrap())
        };
        let lines = text.lines().filter(|line| !line.starts_with('#'));
        let values: BTreeMap<String, f64> = lines.clone().map(sample).collect();
        assert_eq!(values.len(), lines.count(), "a series stands twice");
        Self { text: text.to_owned(), values }
    }

    /// The value of one series; it must be there.
    #[track_caller]
    pub(crate) fn get(&self, series: &str) -> f64 {
        let near = || {
            let name = series.split('{').next().unwrap();
            let near = self.values.keys().filter(|key| key.starts_with(name));
            near.cloned().collect::<Vec<_>>().join("\n")
        };
        *self.values.get(series).unwrap_or_else(|| panic!("no {series}; there are\n{}", near()))
    }

    /// The sum of the series of a name, with this in their labels.
    pub(crate) fn sum(&self, name: &str, label: &str) -> f64 {
        let of = |key: &&String| key.split('{').next() == Some(name) && key.contains(label);
        self.values.keys().filter(of).map(|key| self.values[key]).sum()
    }
}

/// A count as the value of a sample.
pub(crate) fn number(count: usize) -> f64 {
    f64::from(u32::try_from(count).unwrap())
}

/// A body in chunks, put together.
pub(crate) fn unchunked(body: &str) -> String {
    let mut rest = body;
    let mut whole = String::new();
    loop {
        let (size, after) = rest.split_once("\r\n").unwrap();
        let size = usize::from_str_radix(size, 16).unwrap();
        if size == 0 {
            return whole;
        }
        whole.push_str(&after[..size]);
        rest = &after[size + 2..];
    }
}

/// The catalogue's name of a series: without labels, and without what a histogram adds.
pub(crate) fn family(series: &str) -> &'static str {
    let name = series.split('{').next().unwrap();
    let metric = CATALOGUE.iter().find(|metric| {
        let rest = name.strip_prefix(metric.name);
        let parts: &[&str] = match metric.kind {
            Kind::Histogram(_) => &["_bucket", "_sum", "_count"],
            Kind::Counter | Kind::Gauge => &[""],
        };
        rest.is_some_and(|rest| parts.contains(&rest))
    });
    metric.unwrap_or_else(|| panic!("{series} is not in the catalogue")).name
}

/// The names of the labels of a series.
fn labels(series: &str) -> Vec<String> {
    let Some((_, inside)) = series.split_once('{') else { return Vec::new() };
    let mut names = Vec::new();
    let (mut name, mut quoted, mut escaped) = (String::new(), false, false);
    for c in inside.trim_end_matches('}').chars() {
        match c {
            _ if escaped => escaped = false,
            '\\' if quoted => escaped = true,
            '"' => quoted = !quoted,
            '=' if !quoted => names.push(std::mem::take(&mut name)),
            ',' if !quoted => {}
            _ if !quoted => name.push(c),
            _ => {}
        }
    }
    names
}

/// What Prometheus's own tool says of a scrape.
pub(crate) fn judge(text: &str) {
    let mut tool = Command::new("promtool")
        .args(["check", "metrics"])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("promtool, of the Debian package prometheus: make deps");
    tool.stdin.take().unwrap().write_all(text.as_bytes()).unwrap();
    let output = tool.wait_with_output().unwrap();
    let said = String::from_utf8_lossy(&output.stdout).into_owned();
    let said = said + &String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success() && said.trim().is_empty(), "{}: {said}", output.status);
}

const ODD: &str = "an \"odd\" \\ name";

const MANY: &str = r#"services:
  idle: { command: [sleep, "1000"], replicas: 2 }
  calc: { command: [bc], port: { use: bc } }
  fails: { command: [sh, -c, "exit 3"], restart: no }
  killed: { command: [sh, -c, "kill -9 $$$$"], restart: no }
  missing: { command: [/does/not/exist], restart: no }
  none: { command: [x], replicas: 0 }
  odd: { command: ['./an "odd" \ name', "1000"] }
"#;

fn many() -> Wharf {
    let wharf = Wharf::new(MANY);
    std::os::unix::fs::symlink("/bin/sleep", wharf.folder.join(ODD)).unwrap();
    wharf.ok(&["up", "-d"]);
    for service in ["fails", "killed", "missing"] {
        wharf.wait_records(service, 1);
    }
    for service in ["idle", "calc", "odd"] {
        wharf.wait_state(service, "running");
    }
    wharf.ok(&["call", "calc", "6 * 7"]);
    wharf
}

#[test]
fn a_scrape_is_what_the_catalogue_says_and_clean_by_prometheus_own_tool() {
    let wharf = many();
    let scrape = until("the exits in a scrape", || {
        let scrape = Scrape::of(&wharf);
        (scrape.sum("wharf_process_exits_total", "") >= 3.0).then_some(scrape)
    });
    judge(&scrape.text);

    let mut seen = BTreeSet::new();
    for series in scrape.values.keys() {
        let name = family(series);
        let metric = CATALOGUE.iter().find(|metric| metric.name == name).unwrap();
        let mut names = labels(series);
        names.retain(|label| label != "le");
        assert_eq!(names, metric.labels, "{series}");
        seen.insert(name);
    }
    for metric in CATALOGUE {
        assert!(seen.contains(metric.name), "{} is nowhere", metric.name);
        let head = format!(
            "# HELP {} {}\n# TYPE {0} {}\n",
            metric.name,
            metric.help,
            metric.kind.as_str()
        );
        assert_eq!(scrape.text.matches(&head).count(), 1, "{head}");
    }
    // Two replicas of one service, one each of the others, and one service without any.
    let (services, ports, replicas) = (7, 1, 7);
    for metric in CATALOGUE {
        let count = scrape.values.keys().filter(|series| family(series) == metric.name).count();
        let each = metric.series_each();
        match metric.of {
            Of::Manager => assert_eq!(count, each, "{}", metric.name),
            Of::Service => assert_eq!(count, services * each, "{}", metric.name),
            Of::Port => assert_eq!(count, ports * each, "{}", metric.name),
            Of::Replica => assert!((1..=replicas * each).contains(&count), "{}", metric.name),
        }
    }
}

#[test]
fn what_is_told_is_true() {
    let wharf = many();
    let scrape = until("the exits in a scrape", || {
        let scrape = Scrape::of(&wharf);
        (scrape.sum("wharf_process_exits_total", "") >= 3.0).then_some(scrape)
    });
    for (series, value) in [
        ("wharf_service_state{service=\"idle\",state=\"running\"}", 2.0),
        ("wharf_service_state{service=\"missing\",state=\"failed\"}", 1.0),
        ("wharf_service_replicas{service=\"idle\"}", 2.0),
        ("wharf_service_replicas{service=\"fails\"}", 0.0),
        ("wharf_service_replicas_desired{service=\"fails\"}", 1.0),
        ("wharf_service_replicas_desired{service=\"none\"}", 0.0),
        ("wharf_process_starts_total{service=\"idle\"}", 2.0),
        ("wharf_process_starts_total{service=\"missing\"}", 1.0),
        ("wharf_process_exits_total{service=\"fails\",reason=\"failed\"}", 1.0),
        ("wharf_process_exits_total{service=\"killed\",reason=\"signaled\"}", 1.0),
        ("wharf_process_exits_total{service=\"missing\",reason=\"exec_failed\"}", 1.0),
        ("wharf_service_restarts_total{service=\"fails\"}", 0.0),
        ("wharf_restart_budget_remaining{service=\"idle\"}", 10.0),
        ("wharf_restart_budget_remaining{service=\"fails\"}", 0.0),
        ("wharf_last_exit_code{service=\"fails\",replica=\"1\"}", 3.0),
        ("wharf_last_exit_signal{service=\"killed\",replica=\"1\"}", 9.0),
        ("wharf_threads{service=\"idle\"}", 2.0),
        ("wharf_open_fds{service=\"idle\"}", 6.0),
        ("wharf_port_frames_total{service=\"calc\",direction=\"in\"}", 2.0),
        ("wharf_port_request_duration_seconds_count{service=\"calc\"}", 1.0),
        ("wharf_port_request_duration_seconds_bucket{service=\"calc\",le=\"+Inf\"}", 1.0),
        ("wharf_spawn_duration_seconds_count{service=\"idle\"}", 2.0),
        ("wharf_spawn_duration_seconds_count{service=\"missing\"}", 0.0),
        ("wharf_exit_detection_seconds_count{service=\"killed\"}", 1.0),
        ("wharf_config_last_reload_successful", 1.0),
        ("wharf_journal_write_errors_total", 0.0),
    ] {
        assert!((scrape.get(series) - value).abs() < 1e-9, "{series} {}", scrape.get(series));
    }
    // Of those that no signal or no code ended there is no such series: neither is folded into the other.
    for absent in
        ["wharf_last_exit_signal{service=\"fails\"", "wharf_last_exit_code{service=\"killed\""]
    {
        assert!(!scrape.text.contains(absent), "{absent}");
    }
    for reason in Reason::ALL {
        let series = format!("wharf_process_exits_total{{service=\"idle\",reason=\"{reason}\"}}");
        assert!(scrape.get(&series).abs() < 1e-9, "every reason is there from the beginning");
    }
    let rss = scrape.get("wharf_resident_memory_bytes{service=\"idle\"}");
    let peak = scrape.get("wharf_memory_peak_bytes{service=\"idle\"}");
    assert!(rss > 65536.0 && peak >= rss / 2.0, "{rss} {peak}");
    let started = scrape.get("wharf_process_start_time_seconds{service=\"calc\",replica=\"1\"}");
    let ended = scrape.get("wharf_last_exit_timestamp_seconds{service=\"fails\",replica=\"1\"}");
    assert!((started - ended).abs() < 300.0, "{started} {ended}");
}

#[test]
fn what_stands_in_a_label_is_escaped() {
    let wharf = many();
    let scrape = Scrape::of(&wharf);
    let line =
        scrape.text.lines().find(|line| line.starts_with("wharf_service_info{service=\"odd\""));
    let line = line.unwrap();
    assert!(line.ends_with(r#"exe="./an \"odd\" \\ name"} 1"#), "{line}");
    judge(&scrape.text);
}
