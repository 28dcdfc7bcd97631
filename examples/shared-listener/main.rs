//! A server that accepts at a socket it was given, as sd_listen_fds(3) has it: `LISTEN_PID` is its own
//! number, `LISTEN_FDS` how many there are from descriptor 3 on, `LISTEN_FDNAMES` what they are called.
//!
//! ```yaml
//! services:
//!   web:
//!     command: target/debug/examples/shared-listener
//!     replicas: 3
//!     listen: [{ name: greetings, tcp: "127.0.0.1:8080" }]
//! ```

use std::error::Error;
use std::io::Write;
use std::net::TcpListener;

/// The socket of that name.
fn given(name: &str) -> Result<TcpListener, Box<dyn Error>> {
    let own = std::process::id().to_string();
    if std::env::var("LISTEN_PID").as_deref() != Ok(own.as_str()) {
        return Err("no sockets were handed to this process".into());
    }
    let names = std::env::var("LISTEN_FDNAMES")?;
    let at = names.split(':').position(|one| one == name).ok_or("no socket of that name")?;
    // Taken over once, and closed on exec from here on.
    Ok(TcpListener::from(wharf::os::fds::inherited(3 + i32::try_from(at)?)?))
}

pub(crate) fn main() -> Result<(), Box<dyn Error>> {
    let listener = given("greetings")?;
    let replica = std::env::var("WHARF_REPLICA").unwrap_or_default();
    for connection in listener.incoming() {
        // Whoever went away before the answer is no reason to end.
        let _ = connection.and_then(|mut one| writeln!(one, "hello from replica {replica}"));
    }
    Ok(())
}
