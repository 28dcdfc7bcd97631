//! `wharf exits`: the journal, with or without a manager.

use clap::Args;
use jiff::tz::TimeZone;

use super::context::Context;
use super::failure::{Failure, OK};
use super::follow::News;
use super::logs;
use super::out::{self, Out};
use super::story;
use super::text::Show;
use crate::exit::{Cause, Reason};
use crate::journal::{Entry, Filter, Reader, parse_since};
use crate::name::Target;
use crate::os::clock;
use crate::time::Wall;

/// List how runs ended, oldest first
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  wharf exits --since 1h
  wharf exits web db/2 --cause spontaneous --since yesterday --until today
  wharf exits --service web --reason oom_killed --json
  wharf exits -f                 follow; -f FILE.yaml names a configuration")]
pub(super) struct Exits {
    /// Only of these services or single replicas; of all without any
    #[arg(value_name = "NAME[/R]")]
    names: Vec<Target>,
    /// Go on with new ones as they come, also over restarts of the manager, until interrupted
    /// [short: -f]
    #[arg(long)]
    follow: bool,
    /// The same as a name; may be given several times
    #[arg(long = "service", value_name = "NAME[/R]")]
    services: Vec<Target>,
    /// Only with this reason
    #[arg(long)]
    reason: Option<Reason>,
    /// Only with this cause
    #[arg(long)]
    cause: Option<Cause>,
    /// Not older than this: 1h30m, today, yesterday, 07:00, 2026-11-22 07:00, RFC 3339
    #[arg(long, value_name = "TIME", value_parser = since)]
    since: Option<Wall>,
    /// Not younger than this
    #[arg(long, value_name = "TIME", value_parser = since, conflicts_with = "follow")]
    until: Option<Wall>,
    /// No more than so many, the last ones
    #[arg(short = 'n', long = "number", value_name = "N")]
    number: Option<usize>,
    /// As JSON, one record a line
    #[arg(long)]
    json: bool,
}

pub(super) fn since(text: &str) -> Result<Wall, String> {
    parse_since(text, clock::wall()).map_err(|error| error.to_string())
}

impl Exits {
    pub(super) fn run(self, context: &Context) -> Result<u8, Failure> {
        let targets: Vec<Target> = self.names.iter().chain(&self.services).cloned().collect();
        let filter = Filter {
            targets: targets.clone(),
            reason: self.reason,
            cause: self.cause,
            since: self.since,
            until: self.until,
            since_seq: None,
            last: self.number,
        };
        let folder = &context.state.state;
        let mut news = self.follow.then(|| News::of(folder)).transpose()?;
        let reader = Reader::open(folder)?;
        let mut follower = self.follow.then(|| reader.follower(filter.clone())).transpose()?;
        let mut out = Out::new();
        let mut entries = reader.entries(filter)?;
        let mut any = false;
        for entry in &mut entries {
            any = true;
            self.write(&entry?, &mut out)?;
        }
        out.flush()?;
        if !any && !self.follow {
            known(context, &targets)?;
        }
        if entries.unreadable() > 0 {
            context.say(&format!("{} lines of the journal are no records", entries.unreadable()));
        }
        while let (Some(follower), Some(news)) = (&mut follower, &mut news) {
            for entry in follower.read_new()? {
                self.write(&entry, &mut out)?;
            }
            out.flush()?;
            news.wait()?;
        }
        Ok(OK)
    }

    fn write(&self, entry: &Entry, out: &mut Out) -> Result<(), Failure> {
        if self.json {
            out.bytes(&entry.line)?;
            return out.bytes(b"\n");
        }
        // Colours would be a program's own: there are none in a sentence.
        let show = Show { terminal: out::stdout_is_terminal(), color: false };
        out.line(&story::line(&entry.record, &TimeZone::system(), show))
    }
}

/// Makes sure that nothing was found of something that exists: in the configuration, in the logs, or
/// at least in the journal.
pub(super) fn known(context: &Context, targets: &[Target]) -> Result<(), Failure> {
    for target in targets {
        if let Err(failure) = logs::known(context, std::slice::from_ref(target)) {
            let targets = vec![target.clone()];
            let filter = Filter { targets, last: Some(1), ..Filter::default() };
            if Reader::open(&context.state.state)?.entries(filter)?.next().is_none() {
                return Err(failure);
            }
        }
    }
    Ok(())
}
