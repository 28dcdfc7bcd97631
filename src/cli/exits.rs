//! `wharf exits`: the journal, with or without a manager.

use clap::Args;
use jiff::tz::TimeZone;

use super::context::Context;
use super::failure::{Failure, OK};
use super::follow::News;
use super::out::{self, Out};
use super::story;
use super::text::Show;
use crate::exit::Reason;
use crate::journal::{Entry, Filter, Reader, parse_since};
use crate::name::Target;
use crate::os::clock;
use crate::time::Wall;

/// List how runs ended, oldest first
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  wharf exits --since 1h
  wharf exits --service web --reason oom_killed --json
  wharf exits -f                 follow; -f FILE still names a configuration")]
pub(super) struct Exits {
    /// Go on with new ones as they come [short: -f]
    #[arg(long)]
    follow: bool,
    /// Only of this service or replica; may be given several times
    #[arg(long = "service", value_name = "NAME[/R]")]
    services: Vec<Target>,
    /// Only with this reason
    #[arg(long)]
    reason: Option<Reason>,
    /// Not older than this: 10m, 2026-11-22, 2026-11-22 07:00, RFC 3339
    #[arg(long, value_name = "TIME", value_parser = since)]
    since: Option<Wall>,
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
        let filter = Filter {
            targets: self.services.clone(),
            reason: self.reason,
            since: self.since,
            since_seq: None,
            last: self.number,
        };
        let folder = &context.state.state;
        let mut news = self.follow.then(|| News::of(folder)).transpose()?;
        let reader = Reader::open(folder)?;
        let mut follower = self.follow.then(|| reader.follower(filter.clone())).transpose()?;
        let mut out = Out::new();
        let mut entries = reader.entries(filter)?;
        for entry in &mut entries {
            self.write(&entry?, &mut out)?;
        }
        out.flush()?;
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
