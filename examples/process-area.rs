//! A server that computes areas, asked by calls: `cargo run --example process-area`.
//!
//! A request carries where its reply goes, so that whoever gets it can answer. A shape that makes no sense ends the server,
//! and the caller is told how.

use std::io::Write as _;
use std::process::ExitCode;
use std::time::Duration;

use serde::{Deserialize, Serialize};
use wharf::process::{Error, ReplyTo, call, receive, register, spawn, whereis};

#[derive(Debug, Serialize, Deserialize)]
enum Shape {
    Circle { radius: f64 },
    Rectangle { width: f64, height: f64 },
}

#[derive(Debug, Serialize, Deserialize)]
struct Area {
    of: Shape,
    reply: ReplyTo<f64>,
}

pub(crate) fn main() -> ExitCode {
    wharf::run(first)
}

fn first() -> Result<(), Box<dyn std::error::Error>> {
    register("area", &spawn(serve, ())?)?;
    let server = whereis("area")?.ok_or("nobody is called area")?;
    let area = |of| call(&server, Duration::from_secs(5), |reply| Area { of, reply });
    let mut out = std::io::stdout();
    writeln!(out, "circle: {:.3}", area(Shape::Circle { radius: 1.0 })?)?;
    writeln!(out, "rectangle: {}", area(Shape::Rectangle { width: 6.0, height: 7.0 })?)?;
    match area(Shape::Circle { radius: -1.0 }) {
        Err(Error::Down(exit)) => writeln!(out, "the server {exit}")?,
        other => writeln!(out, "{other:?}")?,
    }
    Ok(())
}

fn serve(_: ()) -> Result<(), Error> {
    loop {
        let Area { of, reply } = receive()?;
        reply.send(&match of {
            Shape::Circle { radius } if radius < 0.0 => panic!("a radius of {radius}"),
            Shape::Circle { radius } => std::f64::consts::PI * radius * radius,
            Shape::Rectangle { width, height } => width * height,
        })?;
    }
}
