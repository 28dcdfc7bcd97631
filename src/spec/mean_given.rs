//! What a program is given, from written to meant: variables, sockets and secrets.

use std::collections::{BTreeMap, HashMap};
use std::path::PathBuf;

use indexmap::IndexMap;

use super::env_file::Answer;
use super::format::address;
use super::mean::Subject;
use super::mistake::Found;
use super::tree::Node;
use super::{
    BACKLOG, CHANNEL_NAME, LONGEST_SOCKET, Listen, ListenAddress, MOST_GIVEN, SOCKET_MODE, Secret,
    SecretBy, Service, Spec, written,
};
use crate::name::ServiceName;

/// The variables of a service: those of its files, a later one before an earlier one, and before all
/// of them what it declares itself.
pub(super) fn variables(
    subject: &mut Subject<'_, '_>,
    files: Option<written::EnvFiles>,
    declared: Option<written::Environment>,
) -> BTreeMap<String, String> {
    let mut variables = BTreeMap::new();
    let (files, is_list) = match files {
        None => (Vec::new(), false),
        Some(written::EnvFiles::One(path)) => (vec![written::EnvFile::Path(path)], false),
        Some(written::EnvFiles::More(files)) => (files, true),
    };
    for (at, file) in files.into_iter().enumerate() {
        let number = at.to_string();
        let path = if is_list { vec!["env_file", number.as_str()] } else { vec!["env_file"] };
        of_file(subject, &path, file, &mut variables);
    }
    // A list has become a map before files were merged.
    let Some(written::Environment::Map(entries)) = declared else { return variables };
    for (name, value) in entries {
        let at = ["environment", name.as_str()];
        let value = value.map(|word| word.0).or_else(|| subject.around(&name));
        let Some(value) = value.or_else(|| variables.get(&name).cloned()) else {
            let message = format!("`{name}` has no value here and none in the environment");
            subject.complain(&at, message);
            continue;
        };
        if value.contains('\0') {
            subject.complain(&at, "a NUL byte cannot be passed to a program");
        }
        variables.insert(name, value);
    }
    variables
}

fn of_file(
    subject: &mut Subject<'_, '_>,
    at: &[&str],
    file: written::EnvFile,
    variables: &mut BTreeMap<String, String>,
) {
    let (path, required) = match file {
        written::EnvFile::Path(path) => (path.0, true),
        written::EnvFile::Long(long) => (long.path.0, long.required.unwrap_or(true)),
    };
    if path.is_empty() || path.contains('\0') {
        return subject.complain(at, "this is not a path");
    }
    match subject.env_file(&path) {
        Answer::Read(read) => variables.extend(read.iter().cloned()),
        Answer::Missing if !required => {}
        Answer::Missing => subject.complain_with(
            at,
            format!("there is no file {path}"),
            "write { path: …, required: false } for a file that need not be there",
        ),
        Answer::Unreadable(reason) => subject.complain(at, format!("{path}: {reason}")),
    }
}

/// The sockets of a service.
pub(super) fn listen(
    subject: &mut Subject<'_, '_>,
    written: Option<Vec<written::Listen>>,
) -> Vec<Listen> {
    let written = written.unwrap_or_default();
    if written.len() > MOST_GIVEN {
        subject.complain(&["listen"], format!("a service has at most {MOST_GIVEN} sockets"));
        return Vec::new();
    }
    let mut sockets: Vec<Listen> = Vec::with_capacity(written.len());
    for (at, one) in written.into_iter().enumerate() {
        let number = at.to_string();
        let Some(socket) = socket(subject, &number, one) else { continue };
        let path = ["listen", number.as_str(), "name"];
        if let Some(other) = sockets.iter().find(|other| other.variable() == socket.variable()) {
            let both =
                if other.name == socket.name { "the same name" } else { "the same variable" };
            subject.complain(&path, format!("two sockets have {both}, {}", socket.variable()));
        }
        sockets.push(socket);
    }
    sockets
}

fn socket(subject: &mut Subject<'_, '_>, number: &str, written: written::Listen) -> Option<Listen> {
    let mut complain =
        |key: &str, message: &str| subject.complain(&["listen", number, key], message);
    let is_stream = written.udp.is_none();
    let unix = written.unix.map(|word| word.0);
    let address = match (written.tcp, written.udp, &unix) {
        (Some(text), None, None) => ListenAddress::Tcp(address(&text.0).ok()?),
        (None, Some(text), None) => ListenAddress::Udp(address(&text.0).ok()?),
        (None, None, Some(path)) if path.is_empty() || path == "@" || path.contains('\0') => {
            complain("unix", "this is not a path");
            return None;
        }
        (None, None, Some(path)) if path.starts_with('@') => {
            if path.len() > LONGEST_SOCKET {
                complain("unix", "an abstract name has at most 107 bytes");
            }
            ListenAddress::Unix(PathBuf::from(path))
        }
        (None, None, Some(path)) => {
            // `x`, `./x` and `.//x` are one place.
            let path: PathBuf = subject.beside(path).components().collect();
            if path.as_os_str().len() > LONGEST_SOCKET {
                let long = path.as_os_str().len();
                let message = format!(
                    "the path of a socket has at most {LONGEST_SOCKET} bytes, and {} has {long}",
                    path.display()
                );
                subject.complain(&["listen", number, "unix"], message);
            }
            ListenAddress::Unix(path)
        }
        (None, None, None) => {
            let kinds = ["tcp", "udp", "unix"];
            // What is wrong with one that is there has been said.
            if !kinds.iter().any(|kind| subject.has(&["listen", number, kind])) {
                let message = "a socket needs one of `tcp`, `udp` and `unix`";
                subject.complain(&["listen", number, "name"], message);
            }
            return None;
        }
        _ => {
            complain("name", "a socket has only one of `tcp`, `udp` and `unix`");
            return None;
        }
    };
    let mut complain =
        |key: &str, message: &str| subject.complain(&["listen", number, key], message);
    let is_file = unix.is_some_and(|path| !path.starts_with('@'));
    if !is_file && written.mode.is_some() {
        complain("mode", "only the file of a Unix socket has a mode");
    }
    if !is_file && written.owner.is_some() {
        complain("owner", "only the file of a Unix socket has an owner");
    }
    if !is_stream && written.backlog.is_some() {
        complain("backlog", "nothing waits to be accepted at a socket for datagrams");
    }
    let is_v6 = match &address {
        ListenAddress::Tcp(address) | ListenAddress::Udp(address) => address.is_ipv6(),
        ListenAddress::Unix(_) => false,
    };
    if !is_v6 && written.ipv6_only.is_some() {
        complain("ipv6_only", "the address is none of IPv6");
    }
    let mode = written.mode.and_then(|mode| {
        let digits = mode.0.strip_prefix("0o").unwrap_or(&mode.0).to_owned();
        u32::from_str_radix(&digits, 8).ok()
    });
    if mode.is_some_and(|mode| mode > 0o777) {
        complain("mode", "a socket's mode has no bits beyond 0777");
    }
    Some(Listen {
        name: written.name.0,
        address,
        backlog: written.backlog.unwrap_or(BACKLOG),
        ipv6_only: written.ipv6_only.unwrap_or(false),
        mode: mode.unwrap_or(SOCKET_MODE),
        owner: written.owner.map(|user| user.0),
    })
}

/// The secrets of a service. `sources` says where those of the top of the file come from.
pub(super) fn secrets(
    subject: &mut Subject<'_, '_>,
    written: Option<Vec<written::Secret>>,
) -> Vec<Secret> {
    let written = written.unwrap_or_default();
    if written.len() > MOST_GIVEN {
        subject.complain(&["secrets"], format!("a service has at most {MOST_GIVEN} secrets"));
        return Vec::new();
    }
    let mut secrets: Vec<Secret> = Vec::with_capacity(written.len());
    for (at, one) in written.into_iter().enumerate() {
        let number = at.to_string();
        let path = ["secrets", number.as_str()];
        let (name, file, by) = match one {
            written::Secret::Name(name) => (name.0, None, None),
            written::Secret::Long(long) => (long.name.0, long.file.map(|file| file.0), long.by),
        };
        let Some(file) = source_of(subject, &path, &name, file) else { continue };
        let by = match by {
            None | Some(written::Destination::File) => SecretBy::File,
            Some(written::Destination::Fd) => SecretBy::Fd,
        };
        let secret = Secret { name, file, by };
        if secrets.iter().any(|other| other.variable() == secret.variable()) {
            let message = format!("two secrets have the same variable, {}", secret.variable());
            subject.complain(&path, message);
        }
        secrets.push(secret);
    }
    secrets
}

/// The file that holds a secret.
fn source_of(
    subject: &mut Subject<'_, '_>,
    at: &[&str],
    name: &str,
    own: Option<String>,
) -> Option<PathBuf> {
    let is_own = own.is_some();
    let written = match own.or_else(|| subject.secret_source(name)) {
        Some(file) if file.is_empty() || file.contains('\0') => {
            subject.complain(at, "this is not a path");
            return None;
        }
        Some(file) => file,
        // What is wrong with it there has been said.
        None if subject.is_declared_secret(name) => return None,
        None => {
            let usual = format!("secrets/{name}");
            let path = subject.beside(&usual);
            if subject.trouble_with(&path).is_some() {
                subject.complain_with(
                    at,
                    format!("nothing says where the secret `{name}` comes from"),
                    &format!(
                        "write `secrets: {{ {name}: {{ file: … }} }}` at the top, or put it into \
                         {usual} beside this file"
                    ),
                );
            }
            return Some(path);
        }
    };
    let path = subject.beside(&written);
    if let Some(trouble) = subject.trouble_with(&path) {
        let at = if is_own { [at, &["file"]].concat() } else { at.to_vec() };
        let message = format!("the secret `{name}` cannot be read now: {written}: {trouble}");
        subject.warn(
            &at,
            message,
            "it is read whenever the program starts, which fails without it",
        );
    }
    Some(path)
}

/// The rules between what a service is given and the rest of it.
pub(super) fn rules(subject: &mut Subject<'_, '_>, service: &Service) {
    if service.has_channel_descriptor() {
        let clash = service.listen.iter().position(|socket| socket.name == CHANNEL_NAME);
        if let Some(at) = clash {
            let message =
                format!("`{CHANNEL_NAME}` is the name of descriptor 3, the port's channel");
            subject.complain(&["listen", &at.to_string(), "name"], message);
        }
    }
    if let Some(number) = service.ready_fd()
        && (service.first_socket()..service.first_free_descriptor())
            .any(|taken| i64::from(taken) == i64::from(number))
    {
        let message = format!("descriptor {number} is that of one of its sockets and secrets");
        let free = service.first_free_descriptor();
        let help = format!("the first that nothing stands on is {free}");
        subject.complain_with(&["ready", "fd"], message, &help);
    }
    let sockets = service.listen.iter().map(Listen::variable);
    let secrets = service.secrets.iter().map(Secret::variable);
    for name in sockets.chain(secrets) {
        if service.environment.contains_key(&name) {
            let message = format!("`{name}` tells where a socket or secret is and cannot be set");
            subject.complain(&["environment", &name], message);
        }
    }
}

/// The `secrets:` at the top: where each comes from, as written; `None` where that is wrong.
pub(super) fn sources(block: &Node) -> HashMap<String, Option<String>> {
    let source = |entry: &super::tree::Entry| {
        let file = entry.value.get("file").and_then(Node::text).map(str::to_owned);
        (entry.key.clone(), file)
    };
    block.entries().iter().map(source).collect()
}

/// No two sockets may be at one address: they are found here since no service knows of another.
pub(super) fn addresses(
    spec: &Spec,
    entries: &IndexMap<ServiceName, Node>,
    found: &mut Vec<Found>,
) {
    let mut seen: Vec<(&ServiceName, &Listen)> = Vec::new();
    // Only those with the same port, or at the same path, can be in each other's way.
    let mut nearby: HashMap<String, Vec<usize>> = HashMap::new();
    for (name, service) in &spec.services {
        for (at, socket) in service.listen.iter().enumerate() {
            let near = nearby.entry(neighbourhood(&socket.address)).or_default();
            let number = at.to_string();
            let complain = |message: String, found: &mut Vec<Found>| {
                let node = entries.get(name);
                found.push(Found {
                    place: node.map(|node| node.place_of(&["listen", &number])),
                    path: format!("services.{name}.listen[{at}]"),
                    message,
                    help: None,
                });
            };
            let other = near.iter().map(|at| seen[*at]).find(|(_, one)| one.overlaps(socket));
            if let Some((owner, one)) = other {
                let whose = if owner == name {
                    format!("its socket `{}`", one.name)
                } else {
                    format!("the socket `{}` of {owner}", one.name)
                };
                let what = format!("{} is already held for {whose}", socket.address);
                let what = if one.address == socket.address {
                    what
                } else {
                    format!("{what} ({})", one.address)
                };
                complain(what, found);
            }
            let scraped = spec.metrics.map(|metrics| metrics.listen);
            if let (ListenAddress::Tcp(address), Some(scraped)) = (&socket.address, scraped)
                && *address == scraped
            {
                complain(format!("{} is where metrics are scraped", socket.address), found);
            }
            near.push(seen.len());
            seen.push((name, socket));
        }
    }
}

fn neighbourhood(address: &ListenAddress) -> String {
    match address {
        ListenAddress::Tcp(address) => format!("tcp {}", address.port()),
        ListenAddress::Udp(address) => format!("udp {}", address.port()),
        ListenAddress::Unix(path) => format!("unix {}", path.display()),
    }
}
