//! Functions that can be run by another process of the same program: how they are named, found and entered.

use std::any::type_name;
use std::collections::HashMap;

use serde::de::DeserializeOwned;

use super::error::Error;
use super::value::{Outcome, unpack};
use super::wire;
use crate::os::executable::Executable;
use crate::os::function;

/// A function with its arguments, ready to be run; or why there is none.
pub(super) type Prepared = Result<Box<dyn FnOnce() -> Result<Vec<u8>, String>>, String>;

/// The way into a function: reads the arguments, and then runs it.
pub(super) type Entry = fn(&[u8]) -> Prepared;

/// The entry of the function whose type is `W`.
fn entry<W, A, R>(arguments: &[u8]) -> Prepared
where
    W: Fn(A) -> R + Copy + 'static,
    A: DeserializeOwned + 'static,
    R: Outcome,
{
    let arguments: A = unpack(arguments).map_err(|error| format!("it cannot {error}"))?;
    // Whoever spawned this process, or registered the name, had a `W`.
    Ok(Box::new(move || function::only_value::<W>()(arguments).outcome()))
}

/// The entry of this function, and what it is called.
fn entry_of<W, A, R>(_worker: W) -> (Entry, &'static str)
where
    W: Fn(A) -> R + Copy + 'static,
    A: DeserializeOwned + 'static,
    R: Outcome,
{
    const {
        assert!(size_of::<W>() == 0, "a function that runs in another process captures nothing");
    }
    (entry::<W, A, R>, type_name::<W>())
}

/// The function by its place in the executable, and what it is called.
pub(super) fn by_place<W, A, R>(
    worker: W,
    executable: &Executable,
) -> Result<(wire::Function, &'static str), Error>
where
    W: Fn(A) -> R + Copy + 'static,
    A: DeserializeOwned + 'static,
    R: Outcome,
{
    let (entry, name) = entry_of(worker);
    let offset = function::offset(entry as *const () as usize).ok_or(Error::Library(name))?;
    Ok((wire::Function::Offset { offset, build: executable.build() }, name))
}

/// The functions that a program has given names of their own.
#[derive(Debug, Clone, Default)]
pub(super) struct Functions(HashMap<String, Entry>);

impl Functions {
    pub(super) fn add<W, A, R>(&mut self, name: &str, worker: W)
    where
        W: Fn(A) -> R + Copy + 'static,
        A: DeserializeOwned + 'static,
        R: Outcome,
    {
        self.0.insert(name.to_owned(), entry_of(worker).0);
    }

    /// The entry of the function that is meant; or why there is none.
    pub(super) fn find(
        &self,
        meant: &wire::Function,
        executable: &Executable,
    ) -> Result<Entry, String> {
        match meant {
            wire::Function::Name { name } => {
                let found = self.0.get(name).copied();
                found.ok_or_else(|| format!("the program has no function named {name:?}"))
            }
            wire::Function::Offset { build, .. } if *build != executable.build() => {
                Err("its executable is another one than that of who spawned it".to_owned())
            }
            wire::Function::Offset { offset, .. } => function::find(*offset)
                .ok_or_else(|| "its executable has no function at that place".to_owned()),
        }
    }
}
