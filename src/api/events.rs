//! Server-sent events (WHATWG HTML, section 9.2): what is published, from now on or from a place on.
//!
//! A client is told each exit once, also over the death of the manager: they come from the journal,
//! by number. Everything else comes from what the loop keeps, and what it does not keep any more is
//! told as a gap. Everything is read as fast as the client takes it and no faster; who falls behind
//! the live events asks again, from his own place on.

use std::collections::VecDeque;
use std::convert::Infallible;
use std::fmt::Write as _;
use std::sync::Arc;
use std::time::Duration;

use axum::body::Body;
use axum::extract::rejection::QueryRejection;
use axum::extract::{Query, State};
use axum::http::header::{CACHE_CONTROL, CONTENT_TYPE};
use axum::http::{HeaderMap, StatusCode};
use axum::response::{IntoResponse, Response};
use bytes::Bytes;
use futures_util::stream;
use serde::Deserialize;
use tokio::sync::broadcast::error::RecvError;
use tokio::sync::{OwnedSemaphorePermit, broadcast};

use super::error::ApiError;
use super::input;
use super::pages::Pages;
use super::server::{Door, Shared};
use crate::journal::{Entry, Filter};
use crate::manager::{
    Cursor, Gap, GapReason, Kind, Missing, Notice, Published, Recalled, Since, Teller, What,
};
use crate::name::Target;
use crate::os::clock;
use crate::time::Wall;

/// How often a silent stream says that it is alive, so that the death of a client is noticed.
const HEARTBEAT: Duration = Duration::from_secs(15);
/// How long a client should wait before it connects again, in milliseconds.
const RETRY: u32 = 1000;
/// What is told of the past goes out in pieces of about this many bytes.
const PIECE: usize = 32 << 10;

/// `?since=&service=&kind=&follow=`
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Asked {
    since: Option<String>,
    service: Option<String>,
    kind: Option<String>,
    follow: Option<bool>,
}

/// Which events a client wants.
#[derive(Debug)]
struct Wanted {
    targets: Filter,
    kinds: Vec<Kind>,
}

impl Wanted {
    fn kind(&self, kind: Kind) -> bool {
        self.kinds.is_empty() || self.kinds.contains(&kind)
    }

    fn exits(&self) -> bool {
        self.kind(Kind::Exit)
    }

    fn event(&self, event: &Published) -> bool {
        self.kind(event.what.kind()) && event.what.is_about(&self.targets.targets)
    }

    /// Whether it may be one of the wanted events that is missing.
    fn gap(&self, gap: &Gap) -> bool {
        let other = |kind: &Kind| !matches!(kind, Kind::Exit | Kind::Message | Kind::Gap);
        match (gap.what, gap.reason) {
            (Missing::Exits, GapReason::ElsewhereOrWiped) => true,
            (Missing::Exits, _) => self.exits(),
            (Missing::Messages, _) => self.kind(Kind::Message),
            (Missing::Events, GapReason::ManagerEnded) => {
                self.kinds.iter().any(|kind| *kind != Kind::Exit) || self.kinds.is_empty()
            }
            (Missing::Events, _) => self.kinds.iter().any(other) || self.kinds.is_empty(),
        }
    }
}

pub(super) async fn events(
    State(shared): Door,
    query: Result<Query<Asked>, QueryRejection>,
    headers: HeaderMap,
) -> Result<Response, ApiError> {
    let asked = input::query(query)?;
    let (since, wanted) = understand(&asked, &headers)?;
    let Ok(place) = Arc::clone(&shared.subscribers).try_acquire_owned() else {
        let text = "too many subscribers listen already";
        return Err(ApiError::new(StatusCode::SERVICE_UNAVAILABLE, "busy", text));
    };
    let follow = asked.follow.unwrap_or(true);
    let subscriber = Subscriber::begin(shared, place, wanted, since, follow).await?;
    let body = Body::from_stream(stream::unfold(subscriber, async |mut subscriber| {
        let piece = subscriber.next().await?;
        Some((Ok::<_, Infallible>(piece), subscriber))
    }));
    let headers = [(CONTENT_TYPE, "text/event-stream"), (CACHE_CONTROL, "no-store")];
    Ok((headers, body).into_response())
}

/// What a client wants and from where on. A client that comes back says so in a header, while its
/// address still has the place where it first began.
fn understand(asked: &Asked, headers: &HeaderMap) -> Result<(Option<Since>, Wanted), ApiError> {
    let bad =
        |what: &str, why: String| ApiError::bad_request("bad_query", format!("{what}: {why}"));
    let mut since = None;
    if let Some(text) = &asked.since {
        let place = Since::parse(text, clock::wall());
        since = Some(place.map_err(|error| bad("since", error.to_string()))?);
    }
    // A browser that has heard nothing yet has an empty one.
    if let Some(id) = headers.get("last-event-id").filter(|id| !id.is_empty()) {
        let id = id.to_str().ok().and_then(|id| id.parse::<Cursor>().ok());
        let text = "Last-Event-ID is not an id that this stream gave";
        since = Some(Since::Id(id.ok_or_else(|| ApiError::bad_request("bad_header", text))?));
    }
    let mut wanted = Wanted { targets: Filter::default(), kinds: Vec::new() };
    for name in asked.service.iter().flat_map(|all| all.split(',')) {
        let target: Result<Target, _> = name.parse();
        let target = target.map_err(|error| bad("service", format!("{name:?}: {error}")))?;
        wanted.targets.targets.push(target);
    }
    for word in asked.kind.iter().flat_map(|all| all.split(',')) {
        wanted.kinds.push(word.parse().map_err(|error| bad("kind", error))?);
    }
    Ok((since, wanted))
}

/// One client's way through the events.
struct Subscriber {
    shared: Arc<Shared>,
    wanted: Wanted,
    follow: bool,
    /// How far it has come.
    place: Cursor,
    /// How far the client knows that it has come.
    told: Cursor,
    teller: Teller,
    past: Option<Past>,
    live: broadcast::Receiver<Arc<Published>>,
    /// The first words, until they are said.
    greeting: Option<Bytes>,
    /// Whether the manager has said its last word.
    over: bool,
    /// One of the bounded number of places for subscribers.
    _seat: OwnedSemaphorePermit,
}

/// What is told before the live events.
struct Past {
    gaps: VecDeque<Gap>,
    kept: VecDeque<Arc<Published>>,
    /// The journal, as long as there is more in it; `None` where no exits are wanted.
    pages: Option<Pages>,
    page: VecDeque<Entry>,
    /// Records older than this are passed over.
    not_before: Option<Wall>,
    /// Whether the number of the next record is known.
    counting: bool,
    /// Where the live events begin.
    until: Cursor,
}

impl Subscriber {
    async fn begin(
        shared: Arc<Shared>,
        seat: OwnedSemaphorePermit,
        wanted: Wanted,
        since: Option<Since>,
        follow: bool,
    ) -> Result<Self, ApiError> {
        let heard = shared.handle.subscribe(since);
        let Recalled { from, now, kept, gaps } = heard.recalled;
        let mut subscriber = Self {
            shared,
            wanted,
            follow,
            place: from,
            told: from,
            teller: heard.teller,
            past: None,
            live: heard.live,
            greeting: None,
            over: false,
            _seat: seat,
        };
        let mut text = format!(": listening\nretry: {RETRY}\n");
        if since.is_none() {
            let _ = writeln!(text, "id: {now}");
        }
        text.push('\n');
        subscriber.greeting = Some(text.into());
        subscriber.recall(since, now, kept, gaps).await?;
        Ok(subscriber)
    }

    /// Prepares to tell what was.
    async fn recall(
        &mut self,
        since: Option<Since>,
        until: Cursor,
        kept: Vec<Arc<Published>>,
        gaps: Vec<Gap>,
    ) -> Result<(), ApiError> {
        let exits = self.wanted.exits() && self.place.seq < until.seq;
        let pages = if exits {
            let filter = Filter { since_seq: Some(self.place.seq), ..Filter::default() };
            Some(Pages::open(self.shared.state.state.clone(), filter).await?)
        } else {
            None
        };
        let not_before = match since {
            Some(Since::Time(at)) => Some(at),
            Some(Since::Id(_) | Since::Seq(_)) | None => None,
        };
        self.past = Some(Past {
            gaps: gaps.into(),
            kept: kept.into(),
            pages,
            page: VecDeque::new(),
            not_before,
            counting: not_before.is_none(),
            until,
        });
        Ok(())
    }

    /// Asks for what was missed. The client's place is what counts, so nothing comes twice.
    async fn catch_up(&mut self) -> Result<(), ApiError> {
        let since = Some(Since::Id(self.place));
        let heard = self.shared.handle.subscribe(since);
        let Recalled { from, now, kept, gaps } = heard.recalled;
        (self.place, self.live) = (from, heard.live);
        self.recall(since, now, kept, gaps).await
    }

    /// The next words for the client; none at the end.
    async fn next(&mut self) -> Option<Bytes> {
        if let Some(greeting) = self.greeting.take() {
            return Some(greeting);
        }
        loop {
            while self.past.is_some() {
                let text = self.tell_past().await;
                if !text.is_empty() {
                    return Some(text.into());
                }
            }
            if !self.follow {
                return None;
            }
            if self.over {
                // The connection gets its turn to write before it hears that this is all.
                tokio::task::yield_now().await;
                return None;
            }
            match tokio::time::timeout(HEARTBEAT, self.live.recv()).await {
                Err(_) => return Some(self.heartbeat()),
                Ok(Ok(event)) => {
                    if let Some(text) = self.tell_live(&event).await? {
                        return Some(text);
                    }
                }
                Ok(Err(RecvError::Lagged(_))) => self.catch_up().await.ok()?,
                Ok(Err(RecvError::Closed)) => return None,
            }
        }
    }

    /// A sign of life, with the place where that has moved on past what the client did not want.
    fn heartbeat(&mut self) -> Bytes {
        if self.told == self.place {
            return Bytes::from_static(b":\n\n");
        }
        self.told = self.place;
        format!(":\nid: {}\n\n", self.place).into()
    }

    /// An event as it happens. `None` inside where it is not wanted, `None` outside at the end.
    async fn tell_live(&mut self, event: &Published) -> Option<Option<Bytes>> {
        let mut text = String::new();
        if let What::Exit { record, line } = &event.what {
            if event.seq > self.place.seq + 1 && self.wanted.exits() {
                // Not told by this manager in its order: the journal knows.
                self.catch_up().await.ok()?;
                return Some(None);
            }
            if event.seq > self.place.seq {
                self.place.seq = event.seq;
                if self.wanted.exits() && self.wanted.targets.wants(record) {
                    self.exit(line, &mut text);
                }
            }
        } else if event.number > self.place.number {
            self.other(event, &mut text);
        }
        self.over |= event.what == What::ManagerStop;
        Some((!text.is_empty()).then(|| text.into()))
    }

    /// A piece of what was; an empty one is none, and at the end there is no past any more.
    async fn tell_past(&mut self) -> String {
        let mut text = String::new();
        let Some(mut past) = self.past.take() else { return text };
        while let Some(gap) = past.gaps.pop_front() {
            self.gap(gap, &mut text);
        }
        while text.len() < PIECE {
            let until = past.kept.front().map_or(past.until.seq, |event| event.seq);
            match past.next_exit(until).await {
                Ok(Some(entry)) => self.past_exit(&entry, &mut past.counting, &mut text),
                Ok(None) => {
                    let Some(event) = past.kept.pop_front() else {
                        self.end_past(&past, &mut text);
                        return text;
                    };
                    self.other(&event, &mut text);
                }
                Err(error) => {
                    tracing::warn!(%error, "the journal cannot be read to its end");
                    past.pages = None;
                    past.page.clear();
                    past.counting = true;
                }
            }
        }
        self.past = Some(past);
        text
    }

    fn past_exit(&mut self, entry: &Entry, counting: &mut bool, text: &mut String) {
        let seq = entry.record.seq;
        if *counting {
            self.missing_exits(seq, text);
        }
        *counting = true;
        self.place.seq = seq;
        if self.wanted.targets.wants(&entry.record) {
            self.exit(&entry.line, text);
        }
    }

    /// What is live from here on must not be told again, and what the journal lacks is missed.
    fn end_past(&mut self, past: &Past, text: &mut String) {
        if past.counting && self.wanted.exits() {
            self.missing_exits(past.until.seq + 1, text);
        }
        self.place = past.until;
    }

    /// Says so where records are missing before `next`.
    fn missing_exits(&mut self, next: u64, text: &mut String) {
        let after = self.place.seq;
        if next > after + 1 {
            self.place.seq = next - 1;
            let gap = Gap {
                what: Missing::Exits,
                reason: GapReason::NotInJournal,
                generation: None,
                after: Some(after),
                before: Some(next),
            };
            self.gap(gap, text);
        }
    }

    fn gap(&mut self, gap: Gap, text: &mut String) {
        if self.wanted.gap(&gap) {
            let notice = Notice::of_gap(gap, self.place, clock::wall(), &self.teller);
            self.notice(&notice, text);
        }
    }

    /// An event that is no exit.
    fn other(&mut self, event: &Published, text: &mut String) {
        self.place.number = event.number;
        if !self.wanted.exits() {
            self.place.seq = event.seq;
        }
        // The last word is for everybody, like a gap: without it nobody knows that it is the end.
        if (self.wanted.event(event) || event.what == What::ManagerStop)
            && let Some(notice) = Notice::of(event, self.place, &self.teller)
        {
            self.notice(&notice, text);
        }
    }

    fn notice(&mut self, notice: &Notice, text: &mut String) {
        let data = serde_json::to_string(notice).unwrap_or_default();
        let _ = write!(text, "event: {}\nid: {}\ndata: {data}\n\n", notice.kind, notice.id);
        self.told = self.place;
    }

    /// An exit: its line in the journal, with kind and id before the rest.
    fn exit(&mut self, line: &[u8], text: &mut String) {
        let rest = line.strip_prefix(b"{").unwrap_or(line);
        let rest = String::from_utf8_lossy(rest);
        let place = self.place;
        text.reserve(rest.len() + 160);
        let _ = write!(text, "event: exit\nid: {place}\n");
        let _ = write!(text, "data: {{\"kind\":\"exit\",\"id\":\"{place}\",{rest}\n\n");
        self.told = place;
    }
}

impl Past {
    /// The next record up to this number.
    async fn next_exit(
        &mut self,
        until: u64,
    ) -> Result<Option<Entry>, crate::journal::JournalError> {
        loop {
            if self.page.is_empty() {
                let Some(pages) = &mut self.pages else { return Ok(None) };
                self.page = pages.next().await?.into();
                if self.page.is_empty() {
                    self.pages = None;
                }
            }
            let old = |entry: &Entry| self.not_before.is_some_and(|at| entry.record.ts < at);
            match self.page.front() {
                None => return Ok(None),
                Some(entry) if old(entry) => drop(self.page.pop_front()),
                Some(entry) if entry.record.seq > until => return Ok(None),
                Some(_) => return Ok(self.page.pop_front()),
            }
        }
    }
}
