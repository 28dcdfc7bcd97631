//! Users and groups: who runs this process, and finding others by name (getpwnam(3)).
//!
//! A look-up by name may ask a server on the network and may hang; never call it on the loop.

use nix::unistd::{Gid, Group, Uid, User};

use crate::exit::Errno;

/// What a process needs to become another user.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Identity {
    /// The user's number.
    pub uid: u32,
    /// The primary group's number.
    pub gid: u32,
    /// All groups, the primary one included.
    pub groups: Vec<u32>,
    /// Those of them that were asked for beside the user's own.
    pub added: Vec<u32>,
    /// Who it is by name; `None` where nobody was named, and it stays who we are.
    pub login: Option<Login>,
}

/// A user as a login would show him.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Login {
    /// The login name, or the number where there is no name.
    pub name: String,
    /// The home directory, `/` where none is known.
    pub home: String,
}

/// Finds a user as [`find`] does, or takes the one this process runs as, and adds groups by name or
/// number. `ENOENT` when there is no such user or group.
pub fn find_with(user: Option<&str>, groups: &[String]) -> Result<Identity, Errno> {
    let mut identity = if let Some(user) = user {
        find(user)?
    } else {
        let (uid, gid) = ids();
        Identity { uid, gid, groups: own_groups(), added: Vec::new(), login: None }
    };
    for group in groups {
        let gid = group_number(group)?;
        identity.added.push(gid);
        if !identity.groups.contains(&gid) {
            identity.groups.push(gid);
        }
    }
    Ok(identity)
}

/// The number of a group by name or number.
fn group_number(text: &str) -> Result<u32, Errno> {
    if let Ok(gid) = text.parse() {
        return Ok(gid);
    }
    let found = Group::from_name(text).map_err(|error| Errno(error as i32))?;
    Ok(found.ok_or(Errno(libc::ENOENT))?.gid.as_raw())
}

/// The further groups of this process.
pub fn own_groups() -> Vec<u32> {
    let groups = nix::unistd::getgroups().unwrap_or_default();
    groups.into_iter().map(Gid::as_raw).collect()
}

/// Finds `name`, `1000`, `name:group` or `1000:1000`. `ENOENT` when there is no such user or group.
pub fn find(text: &str) -> Result<Identity, Errno> {
    let (user, group) = match text.split_once(':') {
        Some((user, group)) => (user, Some(group)),
        None => (text, None),
    };
    let none = Errno(libc::ENOENT);
    let failed = |error: nix::errno::Errno| Errno(error as i32);
    let known = match user.parse::<u32>() {
        Ok(uid) => User::from_uid(Uid::from_raw(uid)).map_err(failed)?,
        Err(_) => Some(User::from_name(user).map_err(failed)?.ok_or(none)?),
    };
    let uid = match &known {
        Some(known) => known.uid.as_raw(),
        None => user.parse().map_err(|_| none)?,
    };
    let gid = match group {
        Some(group) => group_number(group)?,
        // A bare number without an entry has no primary group but its own number.
        None => known.as_ref().map_or(uid, |known| known.gid.as_raw()),
    };
    let groups = match &known {
        Some(known) => supplementary(&known.name, gid)?,
        None => vec![gid],
    };
    let login = Login {
        name: known.as_ref().map_or_else(|| uid.to_string(), |known| known.name.clone()),
        home: known
            .map_or_else(|| "/".to_owned(), |known| known.dir.to_string_lossy().into_owned()),
    };
    Ok(Identity { uid, gid, groups, added: Vec::new(), login: Some(login) })
}

fn supplementary(name: &str, gid: u32) -> Result<Vec<u32>, Errno> {
    let name = std::ffi::CString::new(name).map_err(|_| Errno(libc::EINVAL))?;
    nix::unistd::getgrouplist(&name, Gid::from_raw(gid))
        .map(|groups| groups.into_iter().map(Gid::as_raw).collect())
        .map_err(|error| Errno(error as i32))
}

/// The user this process runs as.
pub fn current() -> u32 {
    nix::unistd::geteuid().as_raw()
}

/// The user and the primary group this process runs as.
pub fn ids() -> (u32, u32) {
    (current(), nix::unistd::getegid().as_raw())
}

/// The name and home of the user this process runs as, where the system knows them.
pub fn own() -> Option<(String, String)> {
    let user = User::from_uid(nix::unistd::geteuid()).ok()??;
    Some((user.name, user.dir.to_string_lossy().into_owned()))
}
