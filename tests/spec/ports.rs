//! `port:` as it is written, and the profiles that fill it in.

use std::fs;
use std::path::Path;

use wharf::spec::{self, Framing, PacketWidth, Replies};

use super::{environment, load_all, service};

#[test]
fn profiles_give_what_is_not_written() {
    let bc = service("services: { calc: { port: { use: bc, timeout: 5s, quit: halt } } }");
    assert_eq!(bc.command, ["bc", "-q"]);
    assert_eq!(bc.environment["BC_LINE_LENGTH"], "0");
    let port = bc.port.unwrap();
    assert_eq!((port.timeout.as_secs(), port.quit.as_deref()), (5, Some("halt")));
    assert_eq!(
        port.replies,
        Replies::Sentinel { send: "print \"{token}\\n\"".into(), expect: "{token}".into() }
    );
    let git = service("services: { git: { port: { use: git-cat-file, replies: none } } }");
    let port = git.port.unwrap();
    assert_eq!(port.replies, Replies::None);
    let Framing::Counted { header, trailer } = port.framing else { panic!("{:?}", port.framing) };
    assert_eq!(trailer, "\n");
    let header = regex::bytes::Regex::new(&header).unwrap();
    let line = b"ce013625030ba8dba906f756967f9e9ca394464a blob 6";
    assert_eq!(&header.captures(line).unwrap()["length"], b"6");
    assert!(!header.is_match(b"nope missing"));
}

#[test]
fn every_framing_can_be_written() {
    for (written, meant) in [
        ("lines", Framing::Lines),
        ("nul", Framing::Nul),
        ("packet1", Framing::Packet(PacketWidth::One)),
        ("packet2", Framing::Packet(PacketWidth::Two)),
        ("packet4", Framing::Packet(PacketWidth::Four)),
        ("netstring", Framing::Netstring),
        ("pkt-line", Framing::PktLine),
        ("content-length", Framing::ContentLength),
        ("json", Framing::Json),
        ("msgpack", Framing::Msgpack),
        ("stanza", Framing::Stanza),
        ("{ prompt: '^> $' }", Framing::Prompt("^> $".into())),
        ("eof", Framing::Eof),
        ("raw", Framing::Raw),
    ] {
        let text = format!("services: {{ it: {{ command: x, port: {{ framing: {written} }} }} }}");
        assert_eq!(service(&text).port.unwrap().framing, meant, "{written}");
        assert!(written.contains(meant.name()), "{written}");
    }
}

#[test]
fn framings_that_cannot_work_are_mistakes() {
    for (port, path, message) in [
        (
            "framing: { prompt: '>*' }",
            "services.it.port.framing.prompt",
            "the expression matches nothing at all: every line would begin with it",
        ),
        (
            "framing: eof, replies: { until: x }",
            "services.it.port.replies",
            "with the framing `eof` a run has one message, so that this is `one` or `none`",
        ),
        (
            "framing: eof, eof: ignored",
            "services.it.port.eof",
            "with the framing `eof` the program must heed the end of its input",
        ),
        (
            "framing: eof, quit: x",
            "services.it.port.quit",
            "with the framing `eof` this would be a part of the program's input",
        ),
        (
            r"framing: { counted: { header: '\p{L}(\d+)' } }",
            "services.it.port.framing.counted.header",
            r"`\p{L}(\d+)` is not a regular expression over bytes: Unicode not allowed here",
        ),
        (
            "replies: { sections: { longer: [{ first: x, count: 2 }] } }",
            "services.it.port.replies.sections",
            "this counts flush packets, which only the framing `pkt-line` has",
        ),
        (
            "framing: pkt-line, replies: { sections: { longer: [], error: '0005x' } }",
            "services.it.port.replies.sections.error",
            "the text must end with a flush packet, `0000`",
        ),
        (
            "framing: pkt-line, replies: { sections: { longer: [] } }, \
             ready: { exchange: { send: '0005x', expect: x } }",
            "services.it.port.ready.exchange.send",
            "with `replies: sections` the text must end with a flush packet, `0000`",
        ),
        (
            "framing: pkt-line, replies: { sections: { longer: [] } }, banner: 1, \
             ready: { exchange: { send: '0005x0000', expect: x } }",
            "services.it.port.banner",
            "with `replies: sections` the first that is said answers `ready: exchange`",
        ),
        (
            &format!("framing: pkt-line, quit: {}", "x".repeat(65_517)),
            "services.it.port.quit",
            "the message is longer than the framing's 65516 bytes",
        ),
    ] {
        let text = format!("services: {{ it: {{ command: x, port: {{ {port} }} }} }}");
        let refused = load_all(&[&text]).unwrap_err();
        let said: Vec<_> = refused.iter().map(|one| (&*one.path, &*one.message)).collect();
        assert_eq!(said, [(path, message)]);
    }
}

#[test]
fn every_built_in_profile_makes_a_service() {
    for name in spec::built_in_profiles() {
        let made =
            service(&format!("services: {{ it: {{ command: x, port: {{ use: {name} }} }} }}"));
        assert!(made.port.is_some(), "{name}");
        assert!(Path::new("ports").join(name).join("README.md").exists(), "{name}");
    }
}

#[test]
fn a_profile_beside_the_file_comes_first() {
    let folder = tempfile::tempdir().unwrap();
    let ports = folder.path().join("ports/bc");
    fs::create_dir_all(&ports).unwrap();
    fs::write(ports.join("port.yaml"), "description: Mine\nport: { framing: nul }\n").unwrap();
    let file = folder.path().join("services.yaml");
    fs::write(&file, "services: { calc: { command: bc, port: { use: bc } } }").unwrap();
    let loaded = spec::load(std::slice::from_ref(&file), &environment).unwrap();
    let calc = &loaded.spec.services[0];
    assert_eq!(calc.port.as_ref().unwrap().framing, Framing::Nul);
    assert_eq!(calc.working_dir, folder.path());
    assert_eq!(loaded.spec.files, [file]);
}
