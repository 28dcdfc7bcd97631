//! `wharf logs`: what programs wrote, byte for byte, with or without a manager.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use clap::{Args, ValueEnum};

use super::context::Context;
use super::exits::since;
use super::failure::{Failure, OK};
use super::follow::News;
use super::lines::{Form, Writer};
use super::out;
use crate::name::{ReplicaId, ServiceName, Target};
use crate::os::{clock, limits};
use crate::output::{Follower, LogReader, Merged, Range, Stream};
use crate::spec::meant_instead;
use crate::state::StateError;
use crate::time::{Tick, Wall};

/// How often is looked for replicas that were not there before.
const NEWCOMERS: Duration = Duration::from_millis(200);

/// Print what programs wrote
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  wharf logs web -n 100
  wharf logs -f                  everything, as it comes; -f FILE.yaml names a configuration
  wharf logs web/2 db --since 10m --stream stderr -t
  wharf logs web --stream stdout --raw > exactly-what-it-wrote")]
#[expect(clippy::struct_excessive_bools, reason = "each is a word of the command line")]
pub(super) struct Logs {
    /// Services, or single replicas; all without any
    #[arg(value_name = "NAME[/R]")]
    names: Vec<Target>,
    /// Go on with new output as it comes, over rotation, restarts and `down`, until interrupted
    /// [short: -f]
    #[arg(long)]
    follow: bool,
    /// The last so many lines of each replica
    #[arg(short = 'n', long = "number", visible_alias = "tail", value_name = "N")]
    number: Option<usize>,
    /// Not older than this: 1h30m, today, yesterday, 07:00, 2026-11-22 07:00, RFC 3339
    #[arg(long, value_name = "TIME", value_parser = since)]
    since: Option<Wall>,
    /// Not younger than this
    #[arg(long, value_name = "TIME", value_parser = since, conflicts_with = "follow")]
    until: Option<Wall>,
    /// Only what was written to this stream
    #[arg(long)]
    stream: Option<StreamWord>,
    /// With the time and the stream of each line
    #[arg(short = 't', long)]
    timestamps: bool,
    /// As JSON, one object a line
    #[arg(long)]
    json: bool,
    /// Byte for byte and nothing else, also at a terminal
    #[arg(long, conflicts_with_all = ["json", "timestamps"])]
    raw: bool,
}

/// A stream as a word of the command line.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum StreamWord {
    /// Standard output.
    Stdout,
    /// Standard error.
    Stderr,
}

impl Logs {
    pub(super) fn run(self, context: &Context) -> Result<u8, Failure> {
        // Each replica takes a descriptor a file; what the system refuses is missed when they run out.
        let _ = limits::raise_nofile();
        let folder = context.state.output();
        let mut news = self.follow.then(|| News::of(&folder)).transpose()?;
        let mut replicas = known(context, &self.names)?;
        let mut writer = Writer::new(self.form(), several(&self.names, &replicas));
        let range = self.range();
        let mut following = Following { range, followers: BTreeMap::new() };
        let mut sources = Vec::new();
        for id in &replicas {
            let reader = LogReader::open(&folder, id)?;
            if self.follow {
                following.followers.insert(id.clone(), reader.follower()?);
            }
            sources.push((id.clone(), reader.lines(range)?));
        }
        let mut merged = Merged::new(sources);
        let mut code = OK;
        for line in &mut merged {
            match line {
                Ok((id, line)) => writer.write(&id, &line)?,
                // One damaged file keeps back nothing but what stood in it.
                Err(error) => code = Failure::from(error).tell(),
            }
        }
        if !self.follow {
            writer.end()?;
        }
        writer.flush()?;
        if merged.unreadable() > 0 {
            context.say(&format!("{} lines of the logs cannot be read", merged.unreadable()));
        }
        if self.follow {
            context.say_more("following");
        }
        let mut looked = clock::now();
        while let Some(news) = &mut news {
            // Read until all are at their end, then wait.
            while following.read(&mut writer, context)? {}
            writer.flush()?;
            news.wait()?;
            if !is_due(&mut looked) {
                continue;
            }
            // A service that was removed meanwhile may still have something to say.
            let there = known(context, &self.names).unwrap_or_else(|_| replicas.clone());
            for id in there.difference(&replicas) {
                let reader = LogReader::open(&folder, id)?;
                following.followers.insert(id.clone(), reader.follower()?);
                writer.many |= several(&self.names, &there);
                for line in reader.lines(Range { last: None, ..range })? {
                    writer.write(id, &line?)?;
                }
            }
            replicas.extend(there);
        }
        Ok(code)
    }

    fn range(&self) -> Range {
        let stream = self.stream.map(|word| match word {
            StreamWord::Stdout => Stream::Stdout,
            StreamWord::Stderr => Stream::Stderr,
        });
        Range { last: self.number, since: self.since, until: self.until, stream }
    }

    fn form(&self) -> Form {
        if self.json {
            Form::Json
        } else if self.raw {
            Form::Raw
        } else {
            Form::Text { timestamps: self.timestamps, terminal: out::stdout_is_terminal() }
        }
    }
}

/// Whether it is time to look for newcomers again: in a flood not for every line.
fn is_due(looked: &mut Tick) -> bool {
    let now = clock::now();
    let due = now.since(*looked) >= NEWCOMERS;
    if due {
        *looked = now;
    }
    due
}

/// Whether lines need the name of their replica.
fn several(names: &[Target], replicas: &BTreeSet<ReplicaId>) -> bool {
    replicas.len() > 1 || names.len() != 1
}

/// Places in the output of several replicas.
struct Following {
    range: Range,
    followers: BTreeMap<ReplicaId, Follower>,
}

impl Following {
    /// Writes what is new; false when nothing was.
    fn read(&mut self, writer: &mut Writer, context: &Context) -> Result<bool, Failure> {
        let mut any = false;
        for (id, follower) in &mut self.followers {
            for line in follower.read_new()? {
                any = true;
                if self.range.wants(line.at, line.source) {
                    writer.write(id, &line)?;
                }
            }
            if follower.take_gap() {
                context.say(&format!(
                    "lines of {id} may be missing: its log was rotated faster than it was read"
                ));
            }
        }
        Ok(any)
    }
}

/// The replicas that are meant: those of the configuration in effect and those that left logs.
pub(super) fn known(context: &Context, names: &[Target]) -> Result<BTreeSet<ReplicaId>, Failure> {
    let mut all = BTreeSet::new();
    let mut services = BTreeSet::new();
    match context.state.read_applied() {
        Ok(applied) => {
            for (name, service) in &applied.spec.services {
                services.insert(name.clone());
                let one = |replica| ReplicaId { service: name.clone(), replica };
                all.extend((1..=service.replicas).map(one));
            }
        }
        Err(StateError::File { source, .. }) if source.kind() == std::io::ErrorKind::NotFound => {}
        Err(error) => return Err(error.into()),
    }
    let entries = std::fs::read_dir(context.state.output()).into_iter().flatten().flatten();
    let left = entries.filter_map(|entry| replica_of(entry.file_name().to_str()?));
    all.extend(left);
    services.extend(all.iter().map(|id| id.service.clone()));
    for name in names {
        let there = match name.replica {
            None => services.contains(&name.service),
            Some(replica) => all.contains(&ReplicaId { service: name.service.clone(), replica }),
        };
        if !there && services.contains(&name.service) {
            return Err(Failure::NoSuchReplica {
                name: name.to_string(),
                service: name.service.to_string(),
            });
        }
        if !there {
            let known = services.iter().map(ServiceName::as_str);
            return Err(Failure::NoSuchService {
                name: name.to_string(),
                suggestion: meant_instead(name.service.as_str(), known).map(str::to_owned),
            });
        }
    }
    let meant = |id: &ReplicaId| {
        names.is_empty()
            || names.iter().any(|name| {
                name.service == id.service
                    && name.replica.is_none_or(|replica| replica == id.replica)
            })
    };
    all.retain(meant);
    Ok(all)
}

/// The replica whose file has this name: `SERVICE.REPLICA.log`, perhaps with a number and `.gz`.
fn replica_of(file: &str) -> Option<ReplicaId> {
    let (at, _) = file
        .match_indices(".log")
        .filter(|(at, _)| {
            let rest = &file[at + 4..];
            rest.is_empty() || rest.starts_with('.')
        })
        .last()?;
    let (service, replica) = file[..at].rsplit_once('.')?;
    Some(ReplicaId { service: ServiceName::new(service).ok()?, replica: replica.parse().ok()? })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn files_are_known_by_their_names() {
        for (file, meant) in [
            ("web.1.log", Some("web/1")),
            ("web.12.log.3", Some("web/12")),
            ("web.1.log.3.gz", Some("web/1")),
            ("a.log.b.2.log", Some("a.log.b/2")),
            ("web.log", None),
            ("web.x.log", None),
            ("web.1.logs", None),
            (".1.log", None),
        ] {
            assert_eq!(replica_of(file).map(|id| id.to_string()).as_deref(), meant, "{file}");
        }
    }
}
