//! What a start needs and the loop must not wait for: its user, its secrets, its sockets.
//!
//! A user's name may be looked up in the network, a file may lie on a dead mount. So each start that
//! needs such a thing has it fetched on a thread of its own; sockets are then made by the one thread
//! that holds them all (`sockets`), since replicas share them.

use std::os::fd::OwnedFd;
use std::sync::Arc;

use crate::exit::{Errno, Stage};
use crate::name::Incarnation;
use crate::os::user::{self, Identity};
use crate::os::{errno_of, sealed};
use crate::spec::{LARGEST_SECRET, Listen, Service};

use super::control::Control;
use super::refused;
use super::sockets::{Ask, Order};
use super::start::is_lack;

/// What was fetched.
#[derive(Debug, Default)]
pub(super) struct Fetched {
    /// The user to run as, where another is asked for.
    pub(super) identity: Option<Identity>,
    /// Its sockets, in the order of the configuration.
    pub(super) sockets: Vec<OwnedFd>,
    /// Its secrets, in the order of the configuration.
    pub(super) secrets: Vec<OwnedFd>,
}

/// What could not be fetched.
#[derive(Debug)]
pub(super) struct Unfetched {
    pub(super) stage: Stage,
    pub(super) errno: Errno,
    /// In words, where stage and errno do not say it.
    pub(super) why: Option<String>,
    /// The socket that could not be made.
    pub(super) socket: Option<Box<Listen>>,
}

/// What became of an errand.
pub(super) type Found = (Incarnation, Result<Fetched, Unfetched>);

/// Whether it runs as somebody else than the manager, or in further groups.
fn takes_identity(service: &Service) -> bool {
    service.user.is_some() || !service.rights.group_add.is_empty()
}

/// Whether anything of a service may have to be waited for before its sockets are made.
fn is_slow(service: &Service) -> bool {
    let named = service.listen.iter().any(|socket| socket.owner.is_some());
    takes_identity(service) || !service.secrets.is_empty() || named
}

fn fetch(service: &Service) -> Result<(Fetched, Vec<Order>), Unfetched> {
    let no_user = |errno| Unfetched { stage: Stage::User, errno, why: None, socket: None };
    let groups = &service.rights.group_add;
    let identity = takes_identity(service)
        .then(|| user::find_with(service.user.as_deref(), groups))
        .transpose()
        .map_err(no_user)?;
    let owner = identity.as_ref().map(|identity| (identity.uid, identity.gid));
    let mut orders = Vec::with_capacity(service.listen.len());
    for socket in &service.listen {
        let own =
            socket.owner.as_deref().map(user::find).transpose().map_err(|errno| Unfetched {
                stage: Stage::Listen,
                errno,
                why: Some(format!("the owner of the socket {} is not known", socket.name)),
                socket: None,
            })?;
        let owner = own.map(|own| (own.uid, own.gid)).or(owner);
        orders.push(Order { listen: socket.clone(), owner });
    }
    let mut secrets = Vec::with_capacity(service.secrets.len());
    for secret in &service.secrets {
        let copy = sealed::copy_of(&secret.file, LARGEST_SECRET, owner);
        secrets.push(copy.map_err(|error| Unfetched {
            stage: Stage::Secrets,
            errno: match error.raw_os_error() {
                Some(_) => errno_of(&error),
                None => Errno(libc::EINVAL),
            },
            why: Some(format!("the secret {}: {}: {error}", secret.name, secret.file.display())),
            socket: None,
        })?);
    }
    Ok((Fetched { identity, sockets: Vec::new(), secrets }, orders))
}

impl Control {
    /// Fetches what a run needs, and goes on with its start: at once where it needs nothing.
    pub(super) fn run_errand(&mut self, incarnation: Incarnation, service: &Arc<Service>) {
        if !is_slow(service) && service.listen.is_empty() {
            return self.launch(incarnation, Fetched::default());
        }
        let (tell, waker) = (self.found.0.clone(), self.waker.clone());
        let asks = if service.listen.is_empty() {
            None
        } else {
            // What is in its way may have been the last run's.
            self.close_sockets();
            match self.sockets.asks() {
                Ok(asks) => Some(asks),
                Err(error) => return self.not_now(incarnation, errno_of(&error)),
            }
        };
        let service = Arc::clone(service);
        let slow = is_slow(&service);
        let go = move || {
            let found = match (fetch(&service), asks) {
                (Ok((fetched, orders)), Some(asks)) => {
                    // The thread that holds them tells, and ends only with the loop.
                    let _ = asks.send(Ask::Open { incarnation, orders, fetched });
                    return;
                }
                (Ok((fetched, _)), None) => Ok(fetched),
                (Err(unfetched), _) => Err(unfetched),
            };
            if tell.send((incarnation, found)).is_ok() {
                waker.wake();
            }
        };
        if !slow {
            return go();
        }
        if let Err(error) = std::thread::Builder::new().name("errand".into()).spawn(go) {
            self.not_now(incarnation, errno_of(&error));
        }
    }

    /// What a run needs is here, or cannot be had.
    pub(super) fn errand_done(&mut self, (incarnation, found): Found) {
        let unfetched = match found {
            Ok(fetched) => return self.launch(incarnation, fetched),
            Err(unfetched) => unfetched,
        };
        let Unfetched { stage, errno, why, socket } = unfetched;
        if let Some(socket) = socket
            && errno.0 == libc::EADDRINUSE
            && self.is_worth_another_try(incarnation, &socket)
        {
            return self.not_now(incarnation, errno);
        }
        if matches!(stage, Stage::Listen | Stage::Secrets) && is_lack(errno) {
            return self.not_now(incarnation, errno);
        }
        if let Some(run) = self.runs.get_mut(&incarnation) {
            let usual = refused::why(&run.service, stage, errno, 0);
            run.evidence.extend(why.or(usual));
        }
        self.never_started(incarnation, stage, errno);
    }
}
