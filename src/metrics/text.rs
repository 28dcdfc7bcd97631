//! From a look to the text of a scrape, piece by piece: a family is built for a few services at a
//! time, encoded by the `prometheus` crate and dropped, so that a thousand services never stand in
//! memory as text.

use std::ops::Range;

use bytes::Bytes;
use prometheus::proto::{
    Bucket, Counter, Gauge, Histogram as ProtoHistogram, LabelPair, Metric as Series, MetricFamily,
    MetricType,
};
use prometheus::{TEXT_FORMAT, TextEncoder};

use super::catalogue::{CATALOGUE, Kind, Metric, Of, PROTOCOL_FAULTS};
use super::counts::{Ends, Histogram, PortCounts};
use super::look::{Look, ReplicaRow, ServiceRow};
use super::number;
use crate::event::State;
use crate::exit::Reason;
use crate::time::Wall;

/// The content type of a scrape.
pub const CONTENT_TYPE: &str = TEXT_FORMAT;

/// How many services or replicas a piece tells of: some 30 KiB of text, some 200 KiB while it is made.
const PIECE: usize = 32;

/// How a metric is read.
enum Reading {
    Manager(fn(&Look, &mut Put<'_>)),
    Service(fn(&ServiceRow, &mut Put<'_>)),
    Replica(fn(&ReplicaRow) -> Option<f64>),
    Histogram(fn(&ServiceRow) -> Histogram),
}

/// Takes the series of one metric.
struct Put<'a> {
    metric: &'a Metric,
    series: &'a mut Vec<Series>,
    /// The values of the labels that all of these have.
    first: Vec<String>,
}

impl Put<'_> {
    fn value(&mut self, rest: &[&str], value: f64) {
        let mut series = Series::from_label(self.labels(rest));
        if self.metric.kind == Kind::Counter {
            let mut counter = Counter::default();
            counter.set_value(value);
            series.set_counter(counter);
        } else {
            let mut gauge = Gauge::default();
            gauge.set_value(value);
            series.set_gauge(gauge);
        }
        self.series.push(series);
    }

    fn histogram(&mut self, bounds: &[f64], histogram: &Histogram) {
        let mut total = 0;
        let buckets = bounds.iter().zip(histogram.counts).map(|(bound, count)| {
            total += count;
            let mut bucket = Bucket::default();
            bucket.set_upper_bound(*bound);
            bucket.set_cumulative_count(total);
            bucket
        });
        let mut encoded = ProtoHistogram::default();
        encoded.set_bucket(buckets.collect());
        encoded.set_sample_count(histogram.count());
        encoded.set_sample_sum(histogram.sum);
        let mut series = Series::from_label(self.labels(&[]));
        series.set_histogram(encoded);
        self.series.push(series);
    }

    fn labels(&self, rest: &[&str]) -> Vec<LabelPair> {
        let values = self.first.iter().map(String::as_str).chain(rest.iter().copied());
        let pair = |(name, value): (&&str, &str)| {
            let mut pair = LabelPair::default();
            pair.set_name((*name).to_owned());
            pair.set_value(value.to_owned());
            pair
        };
        self.metric.labels.iter().zip(values).map(pair).collect()
    }
}

fn ends(row: &ServiceRow) -> Ends {
    row.counts.ends.as_deref().cloned().unwrap_or_default()
}

fn port(row: &ServiceRow) -> PortCounts {
    row.counts.port.as_deref().cloned().unwrap_or_default()
}

/// Seconds since 1970.
fn seconds(at: Wall) -> f64 {
    number(at.0 / 1_000_000) / 1e3
}

/// One line for each value of a label.
fn each<V: Into<f64> + Copy>(put: &mut Put<'_>, labels: &[&str], values: &[V]) {
    for (label, value) in labels.iter().zip(values) {
        put.value(&[*label], (*value).into());
    }
}

const DIRECTIONS: [&str; 2] = ["in", "out"];

/// How each metric of the catalogue is read.
#[rustfmt::skip]
fn reading(name: &str) -> Option<Reading> {
    use Reading::{Histogram as Spread, Manager, Replica, Service};
    Some(match name {
        "wharf_build_info" => Manager(|_, put| put.value(&[env!("CARGO_PKG_VERSION")], 1.0)),
        "wharf_service_info" => Service(|row, put| {
            let framing = row.service.port.as_ref().map_or("none", |port| port.framing.name());
            let exe = row.service.command.first().map_or("", String::as_str);
            put.value(&[framing, row.service.restart.policy.as_str(), exe], 1.0);
        }),
        "wharf_service_state" => Service(|row, put| {
            each(put, &State::ALL.map(State::as_str), &row.states);
        }),
        "wharf_service_replicas" => Service(|row, put| {
            put.value(&[], row.states[State::Running as usize].into());
        }),
        "wharf_service_replicas_desired" => Service(|row, put| put.value(&[], row.desired.into())),
        "wharf_process_starts_total" => Service(|row, put| put.value(&[], number(row.counts.starts))),
        "wharf_process_exits_total" => Service(|row, put| {
            for (reason, count) in Reason::ALL.iter().zip(ends(row).exits) {
                put.value(&[reason.as_str()], number(count));
            }
        }),
        "wharf_service_replicas_healthy" => Service(|row, put| put.value(&[], row.healthy.into())),
        "wharf_probe_failures_total" => Service(|row, put| {
            put.value(&[], number(row.counts.probe_failures));
        }),
        "wharf_service_restarts_total" => Service(|row, put| put.value(&[], number(ends(row).restarts))),
        "wharf_restart_backoff_seconds" => Service(|row, put| put.value(&[], row.backoff.as_secs_f64())),
        "wharf_restart_budget_remaining" => Service(|row, put| {
            // A service without replicas has all of it.
            put.value(&[], row.budget.min(row.service.restart.max_restarts).into());
        }),
        "wharf_last_exit_code" => Replica(|row| row.last?.code.map(f64::from)),
        "wharf_last_exit_signal" => Replica(|row| row.last?.signal.map(f64::from)),
        "wharf_last_exit_timestamp_seconds" => Replica(|row| Some(seconds(row.last?.at))),
        "wharf_process_start_time_seconds" => Replica(|row| Some(seconds(row.created?))),
        "wharf_cpu_seconds_total" => Service(|row, put| each(put, &["user", "system"], &row.uses.cpu)),
        "wharf_resident_memory_bytes" => Service(|row, put| put.value(&[], number(row.uses.resident))),
        "wharf_memory_peak_bytes" => Service(|row, put| put.value(&[], number(row.uses.peak))),
        "wharf_oom_kills_total" => Service(|row, put| put.value(&[], number(row.counts.oom_kills))),
        "wharf_open_fds" => Service(|row, put| put.value(&[], number(row.uses.open))),
        "wharf_max_fds" => Service(|row, put| put.value(&[], number(row.uses.allowed))),
        "wharf_worst_fd_ratio" => Service(|row, put| put.value(&[], row.uses.worst)),
        "wharf_threads" => Service(|row, put| put.value(&[], number(row.uses.threads))),
        "wharf_io_read_bytes_total" => Service(|row, put| put.value(&[], number(row.uses.storage[0]))),
        "wharf_io_write_bytes_total" => Service(|row, put| put.value(&[], number(row.uses.storage[1]))),
        "wharf_port_frames_total" => Service(|row, put| each(put, &DIRECTIONS, &port(row).frames.map(number))),
        "wharf_port_bytes_total" => Service(|row, put| each(put, &DIRECTIONS, &port(row).bytes.map(number))),
        "wharf_port_protocol_errors_total" => Service(|row, put| {
            each(put, &PROTOCOL_FAULTS, &port(row).faults.map(number));
        }),
        "wharf_port_request_duration_seconds" => Spread(|row| port(row).requests),
        "wharf_port_queue_length" => Service(|row, put| put.value(&[], number(row.queued))),
        "wharf_port_blocked_seconds_total" => Service(|row, put| put.value(&[], port(row).blocked.as_secs_f64())),
        "wharf_spawn_duration_seconds" => Spread(|row| row.counts.spawn),
        "wharf_exit_detection_seconds" => Spread(|row| ends(row).detection),
        "wharf_log_lines_total" => Service(|row, put| {
            each(put, &["stdout", "stderr"], &row.counts.log_lines.map(number));
        }),
        "wharf_log_dropped_lines_total" => Service(|row, put| put.value(&[], number(row.counts.log_dropped))),
        "wharf_config_last_reload_successful" => Manager(|look, put| {
            put.value(&[], if look.manager.reload_refused { 0.0 } else { 1.0 });
        }),
        "wharf_config_last_reload_timestamp_seconds" => Manager(|look, put| {
            put.value(&[], seconds(look.manager.configured_at));
        }),
        "wharf_journal_write_errors_total" => Manager(|look, put| {
            put.value(&[], number(look.manager.journal_errors));
        }),
        "wharf_scrape_duration_seconds" => Manager(|look, put| put.value(&[], look.took.as_secs_f64())),
        _ => return None,
    })
}

/// Where the text of a look has come to. The look itself is given with each step, so that whoever
/// holds it may drop it at any time.
#[derive(Debug, Default)]
pub struct Pieces {
    metric: usize,
    from: usize,
    /// Whether the present family's `# HELP` and `# TYPE` have been written.
    begun: bool,
}

impl Pieces {
    /// The next piece; `None` at the end. Takes about a millisecond.
    pub fn next(&mut self, look: &Look) -> Option<Bytes> {
        loop {
            let metric = CATALOGUE.get(self.metric)?;
            let length = match metric.of {
                Of::Manager => 1,
                Of::Service | Of::Port => look.services.len(),
                Of::Replica => look.replicas.len(),
            };
            if self.from >= length {
                (self.metric, self.from, self.begun) = (self.metric + 1, 0, false);
                continue;
            }
            let range = self.from..(self.from + PIECE).min(length);
            self.from = range.end;
            let mut series = Vec::new();
            read(metric, look, range, &mut series);
            if series.is_empty() {
                continue;
            }
            let text = encode(metric, series, !self.begun);
            self.begun = true;
            return Some(text);
        }
    }
}

/// Collects the series of a metric for some of what it is about.
fn read(metric: &Metric, look: &Look, range: Range<usize>, series: &mut Vec<Series>) {
    let spoken = |row: &&ServiceRow| metric.of != Of::Port || row.service.port.is_some();
    let rows =
        |range: Range<usize>| look.services.get(range).unwrap_or_default().iter().filter(spoken);
    let of_service = |row: &ServiceRow| vec![row.service.name.to_string()];
    match reading(metric.name) {
        None => {}
        Some(Reading::Manager(read)) => read(look, &mut Put { metric, series, first: Vec::new() }),
        Some(Reading::Service(read)) => {
            for row in rows(range) {
                read(row, &mut Put { metric, series, first: of_service(row) });
            }
        }
        Some(Reading::Histogram(read)) => {
            let Kind::Histogram(bounds) = metric.kind else { return };
            for row in rows(range) {
                Put { metric, series, first: of_service(row) }.histogram(bounds, &read(row));
            }
        }
        Some(Reading::Replica(read)) => {
            for row in look.replicas.get(range).unwrap_or_default() {
                if let Some(value) = read(row) {
                    let first = vec![row.service.to_string(), row.replica.to_string()];
                    Put { metric, series, first }.value(&[], value);
                }
            }
        }
    }
}

fn encode(metric: &Metric, series: Vec<Series>, with_header: bool) -> Bytes {
    let mut family = MetricFamily::default();
    family.set_name(metric.name.to_owned());
    family.set_help(metric.help.to_owned());
    family.set_field_type(match metric.kind {
        Kind::Counter => MetricType::COUNTER,
        Kind::Gauge => MetricType::GAUGE,
        Kind::Histogram(_) => MetricType::HISTOGRAM,
    });
    family.set_metric(series);
    let mut text = String::new();
    // It refuses only families without a name or without series.
    if let Err(error) = TextEncoder::new().encode_utf8(&[family], &mut text) {
        tracing::error!(%error, metric = metric.name, "cannot encode a metric");
        return Bytes::new();
    }
    let text = Bytes::from(text);
    if with_header {
        return text;
    }
    // The encoder writes `# HELP` and `# TYPE` each time, one line each.
    let second = memchr::memchr_iter(b'\n', &text).nth(1).map_or(0, |end| end + 1);
    text.slice(second..)
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::time::Duration;

    use super::*;
    use crate::metrics::counts::Book;
    use crate::metrics::look::Looker;
    use crate::metrics::sample::{LastSample, ReplicaSample, Sample, ServiceSample};
    use crate::name::{ReplicaId, ServiceName};
    use crate::spec::{Port, Service};

    fn service(name: &str, is_port: bool, exe: &str) -> Arc<Service> {
        Arc::new(Service {
            command: vec![exe.to_owned()],
            port: is_port.then(Port::default),
            ..Service::new(ServiceName::new(name).unwrap())
        })
    }

    fn sample(services: Vec<Arc<Service>>) -> Sample {
        let mut book = Book::default();
        let replicas = services.iter().enumerate().map(|(at, service)| ReplicaSample {
            service: at,
            id: ReplicaId { service: service.name.clone(), replica: 1 },
            state: State::Backoff,
            wanted: true,
            healthy: false,
            backoff: Duration::from_millis(1500),
            budget: 3,
            process: None,
            last: Some(LastSample { code: Some(3), signal: None, at: Wall(1_500_000_000) }),
        });
        let replicas = replicas.collect();
        let services = services.into_iter().map(|service| {
            book.open(&service.name);
            let counts = book.get(&service.name).unwrap().clone();
            ServiceSample { service, counts }
        });
        Sample { services: services.collect(), replicas, ..Sample::default() }
    }

    fn text(look: &Look) -> String {
        let mut pieces = Pieces::default();
        let all = std::iter::from_fn(|| pieces.next(look));
        all.map(|piece| String::from_utf8(piece.to_vec()).unwrap()).collect()
    }

    #[test]
    fn every_metric_of_the_catalogue_can_be_read() {
        for metric in CATALOGUE {
            assert!(reading(metric.name).is_some(), "{}", metric.name);
        }
        assert!(reading("wharf_nonsense").is_none());
    }

    #[test]
    fn a_family_is_whole_whatever_the_pieces() {
        let services: Vec<_> =
            (0..100).map(|at| service(&format!("s{at}"), at % 2 == 0, "/bin/x")).collect();
        let text = text(&Looker::default().look(sample(services)));
        for metric in CATALOGUE {
            let lines = text.lines().filter(|line| {
                line.strip_prefix(metric.name).is_some_and(|rest| {
                    rest.starts_with([' ', '{', '_'])
                        && !CATALOGUE.iter().any(|other| {
                            other.name.len() > metric.name.len() && line.starts_with(other.name)
                        })
                })
            });
            let about = match metric.of {
                Of::Manager => 1,
                Of::Port => 50,
                Of::Service | Of::Replica => 100,
            };
            let absent = ["wharf_last_exit_signal", "wharf_process_start_time_seconds"];
            let expected =
                if absent.contains(&metric.name) { 0 } else { about * metric.series_each() };
            assert_eq!(lines.count(), expected, "{}", metric.name);
            let heads = text.matches(&format!("# TYPE {} ", metric.name)).count();
            assert_eq!(heads, usize::from(expected > 0), "{}", metric.name);
        }
        assert!(text.contains("wharf_restart_backoff_seconds{service=\"s99\"} 1.5\n"));
        assert!(
            text.contains("wharf_last_exit_timestamp_seconds{service=\"s0\",replica=\"1\"} 1.5\n")
        );
    }

    #[test]
    fn what_stands_in_a_label_is_escaped() {
        let odd = "/opt/a \"b\"\\c\nd é";
        let text = text(&Looker::default().look(sample(vec![service("web", false, odd)])));
        let line = text.lines().find(|line| line.starts_with("wharf_service_info{")).unwrap();
        assert!(line.ends_with(r#"exe="/opt/a \"b\"\\c\nd é"} 1"#), "{line}");
    }
}
