//! What the guardian and this manager say to each other once it runs: signals that somebody sent, and the wish
//! that everything end. How the guardian is told of what is kept is in `vault`.

use std::io;
use std::os::fd::AsFd;

use crate::event::{Configure, Event};
use crate::exit::{Cause, Signal};
use crate::guardian::{ALIVE, DOWN, Relayed};
use crate::name::Requester;
use crate::os::fds;

use super::control::Control;

/// How much of a client's name is told to the guardian, in characters.
const LONGEST_NAME: usize = 100;

/// What the guardian says.
enum Word {
    /// It wants a sign of life.
    Alive,
    /// Somebody has sent a signal, or an earlier manager had accepted a command that stands for one.
    Signal(Relayed),
    /// It is gone: it keeps its end as long as it lives.
    Gone,
}

impl Control {
    /// Tells the guardian that everything is to end: should this manager not live to see it, the next one
    /// goes on with that.
    pub(super) fn tell_shutdown(&self, by: &Requester) {
        let who = by.who.chars().take(LONGEST_NAME).collect();
        let wish = Relayed { signal: Signal::TERM, pid: by.pid, uid: by.uid, who: Some(who) };
        let Ok(text) = serde_json::to_vec(&wish) else { return };
        let word = [DOWN, &text].concat();
        if let Err(error) = fds::try_send(self.guardian.as_fd(), &word, &[]) {
            tracing::error!(%error, "cannot tell the guardian that everything is to end");
        }
    }

    /// The next word of the guardian; `None` where there is none yet. What is no word is passed over.
    fn word(&self) -> io::Result<Option<Word>> {
        let mut text = [0; 1024];
        while let Some(received) = fds::receive(self.guardian.as_fd(), &mut text)? {
            let text = &text[..received.bytes];
            if text.is_empty() {
                return Ok(Some(Word::Gone));
            }
            if text == ALIVE {
                return Ok(Some(Word::Alive));
            }
            if let Ok(relayed) = serde_json::from_slice(text) {
                return Ok(Some(Word::Signal(relayed)));
            }
        }
        Ok(None)
    }

    /// The guardian says something.
    pub(super) fn guardian_speaks(&mut self) -> io::Result<()> {
        while let Some(word) = self.word()? {
            match word {
                Word::Alive => self.asked_for_a_sign(),
                Word::Signal(relayed) => self.signalled(relayed),
                Word::Gone => {
                    // Usually its pidfd has told; but it may have died before that was opened, and then
                    // the pidfd is a stranger's.
                    self.poller.remove(self.guardian.as_fd())?;
                    self.guardian_died();
                    return Ok(());
                }
            }
        }
        Ok(())
    }

    /// The first configuration takes effect. Where a manager before was to end everything, and did not live to
    /// see it, the guardian has said so as it started this one: then that is done in the same step, and nothing
    /// is started for a moment.
    pub(super) fn begin(&mut self, mut configure: Configure) {
        let heard = self.heard_first();
        let wish = heard.clone().filter(|relayed| self.means_the_end(relayed));
        let by = wish.map(requester);
        if let Some(by) = &by {
            self.tell_of_shutdown(by);
            configure.down = Some((Cause::ManagerShutdown, by.clone()));
        }
        self.feed(Event::Configure(Box::new(configure)));
        match (heard, by) {
            (Some(relayed), Some(by)) if hurries(&relayed) => {
                self.shut_down(Cause::ManagerShutdown, by);
            }
            (Some(relayed), None) => self.signalled(relayed),
            (_, _) => {}
        }
    }

    /// What the guardian has relayed already.
    fn heard_first(&mut self) -> Option<Relayed> {
        loop {
            match self.word() {
                Ok(Some(Word::Alive)) => self.asked_for_a_sign(),
                Ok(Some(Word::Signal(relayed))) => return Some(relayed),
                // That it is gone is heard again as often as one listens.
                Ok(Some(Word::Gone) | None) | Err(_) => return None,
            }
        }
    }

    fn means_the_end(&self, relayed: &Relayed) -> bool {
        relayed.signal != Signal::HUP || !self.reload_on_hang_up
    }

    fn signalled(&mut self, relayed: Relayed) {
        if !self.means_the_end(&relayed) {
            self.reload_asked(requester(relayed));
            return;
        }
        let hurry = hurries(&relayed) && !self.shutting_down;
        let by = requester(relayed);
        self.shut_down(Cause::ManagerShutdown, by.clone());
        if hurry {
            self.shut_down(Cause::ManagerShutdown, by);
        }
    }

    /// The guardian is gone: nobody would start this manager again, so everything ends at once.
    pub(super) fn guardian_died(&mut self) {
        if self.poller.remove(self.guardian_life.as_fd()).is_err() {
            // Told before: by its pidfd or by its end of the conversation.
            return;
        }
        self.alone = true;
        let by = Requester { uid: None, pid: Some(self.guardian_pid), who: "guardian".to_owned() };
        tracing::error!("the guardian died; everything is killed");
        self.shut_down(Cause::GuardianDied, by.clone());
        self.shut_down(Cause::GuardianDied, by);
    }
}

/// Whether what runs is not only to end, but at once.
fn hurries(relayed: &Relayed) -> bool {
    relayed.signal.number() == libc::SIGQUIT
}

/// Who sent a signal, or what did.
fn requester(relayed: Relayed) -> Requester {
    let who = match (relayed.signal, relayed.pid) {
        _ if relayed.who.is_some() => relayed.who.unwrap_or_default(),
        (Signal::INT, None) => "Ctrl-C".to_owned(),
        (Signal::HUP, None) => "hang-up of the terminal".to_owned(),
        (signal, _) => signal.to_string(),
    };
    Requester { uid: relayed.uid, pid: relayed.pid, who }
}
