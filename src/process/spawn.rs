//! Making processes, and what else the hub is asked for.

use std::time::Duration;

use serde::Serialize;
use serde::de::DeserializeOwned;

use super::error::Error;
use super::function::by_place;
use super::inside::fits;
use super::shared::{Shared, shared};
use super::value::{Outcome, pack};
use super::watch::Monitor;
use super::wire::{Answer, Ask, Function, Made, Start};
use crate::mailbox::Exit;
use crate::message::{Failure, Frame, Kind};
use crate::name::{Address, Incarnation};
use crate::os::clock;

/// How long the hub is waited for. It waits for nobody itself but for a process to start, which it gives 30 s.
const PATIENCE: Duration = Duration::from_secs(60);

/// Runs a function in a new process, and returns once it runs there.
///
/// The function captures nothing, which is checked when it is compiled; `arguments` may be any value that serde
/// knows. The process ends with the function; what it returned, the error or the panic is in the [`Exit`] that
/// [monitors](spawn_monitor) are told.
pub fn spawn<W, A, R>(worker: W, arguments: A) -> Result<Address, Error>
where
    W: Fn(A) -> R + Copy + 'static,
    A: Serialize + DeserializeOwned + 'static,
    R: Outcome,
{
    start(worker, arguments, Bond::None).map(|(address, _)| address)
}

/// The same with a monitor, which is there before the process can end.
pub fn spawn_monitor<W, A, R>(worker: W, arguments: A) -> Result<(Address, Monitor), Error>
where
    W: Fn(A) -> R + Copy + 'static,
    A: Serialize + DeserializeOwned + 'static,
    R: Outcome,
{
    start(worker, arguments, Bond::Monitor).map(|(address, id)| (address, Monitor { id, address }))
}

/// The same with a [`link`](super::link), which is there before the process can end.
pub fn spawn_link<W, A, R>(worker: W, arguments: A) -> Result<Address, Error>
where
    W: Fn(A) -> R + Copy + 'static,
    A: Serialize + DeserializeOwned + 'static,
    R: Outcome,
{
    start(worker, arguments, Bond::Link).map(|(address, _)| address)
}

/// Runs the function that the program [gave this name](super::Program::function).
pub fn spawn_named<A: Serialize>(name: &str, arguments: &A) -> Result<Address, Error> {
    let function = Function::Name { name: name.to_owned() };
    make(shared()?, function, name, pack(arguments)?, Bond::None).map(|(address, _)| address)
}

/// What there is between the new process and this one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Bond {
    None,
    Monitor,
    Link,
}

fn start<W, A, R>(worker: W, arguments: A, bond: Bond) -> Result<(Address, u64), Error>
where
    W: Fn(A) -> R + Copy + 'static,
    A: Serialize + DeserializeOwned + 'static,
    R: Outcome,
{
    let shared = shared()?;
    let (function, name) = by_place(worker, &shared.executable)?;
    let packed = pack(&arguments)?;
    // Whatever they hold is let go before the other process begins with its own.
    drop(arguments);
    make(shared, function, name, packed, bond)
}

fn make(
    shared: &Shared,
    function: Function,
    name: &str,
    arguments: Vec<u8>,
    bond: Bond,
) -> Result<(Address, u64), Error> {
    // What `ps` shows; a NUL byte could not be handed over.
    let label: String = name.chars().filter(|letter| *letter != '\0').take(200).collect();
    let (monitor, link) = (bond == Bond::Monitor, bond == Bond::Link);
    let order = Start { function, label, monitor, link };
    fits(&arguments)?;
    let (id, realm) = shared.with(|inside, poller| {
        let id = inside.fresh();
        inside.ask_hub(&Frame::control(Kind::Spawn, id, &order), poller)?;
        inside.tell_hub(&Frame::new(Kind::Data, id, arguments), poller)?;
        if monitor {
            inside.monitors.insert(id);
        }
        Ok::<_, Error>((id, inside.me.realm))
    })?;
    let made: Result<Made, Error> = answered(shared, id);
    if made.is_err() {
        shared.with(|inside, _| inside.monitors.remove(&id));
    }
    Ok((Address::new(realm, Incarnation(made?.incarnation)), id))
}

/// Waits for the hub's answer to what was asked with this id.
fn answered<T: DeserializeOwned>(shared: &Shared, id: u64) -> Result<T, Error> {
    let deadline = Some(clock::now() + PATIENCE);
    let answer = shared.until(deadline, |inside, _| inside.answer(id))?.ok_or(Error::Timeout)?;
    let bad = |error: crate::message::BadPayload| Error::Refused(error.to_string());
    if answer.kind == Kind::Reply {
        return answer.read().map_err(bad);
    }
    let failure: Failure = answer.read().map_err(bad)?;
    let exit = failure.data.and_then(|data| serde_json::from_value::<Exit>(*data).ok());
    Err(match exit {
        Some(exit) => Error::NotStarted(Box::new(exit)),
        None => Error::Refused(failure.message),
    })
}

/// Asks the hub for something.
pub(super) fn asked(ask: &Ask) -> Result<Answer, Error> {
    let shared = shared()?;
    let id = shared.with(|inside, poller| {
        let id = inside.fresh();
        inside.ask_hub(&Frame::control(Kind::Call, id, ask), poller)
    })?;
    answered(shared, id)
}

/// The address of this process.
pub fn me() -> Result<Address, Error> {
    Ok(shared()?.with(|inside, _| inside.me))
}

/// Gives a process a name, by which it is found with [`whereis`]. It loses the name when it ends. A name has 1 to 64 of
/// `a-z A-Z 0-9 _ - .` and begins with a letter or digit.
pub fn register(name: &str, address: &Address) -> Result<(), Error> {
    let (name, incarnation) = (name.to_owned(), address.incarnation.0);
    asked(&Ask::Register { name, incarnation }).map(drop)
}

/// Takes a name back; `false` where nobody has it.
pub fn unregister(name: &str) -> Result<bool, Error> {
    asked(&Ask::Unregister { name: name.to_owned() }).map(|answer| answer.done)
}

/// The address of the process with this name.
pub fn whereis(name: &str) -> Result<Option<Address>, Error> {
    let answer = asked(&Ask::Whereis { name: name.to_owned() })?;
    let realm = me()?.realm;
    Ok(answer.incarnation.map(|who| Address::new(realm, Incarnation(who))))
}
