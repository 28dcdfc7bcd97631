//! Files that are wrong are refused with file and line, and nothing is written.

use crate::support::Place;

/// Imports a file that must be refused with this code and these words.
#[track_caller]
fn refused(code: i32, name: &str, text: &str, words: &[&str]) {
    let place = Place::new();
    place.write(name, text);
    let told = place.fails(code, &["import", name, "-o", "services.yaml"]);
    for word in words {
        assert!(told.contains(word), "{name}: {word:?} is not in\n{told}");
    }
    assert!(!place.folder.join("services.yaml").exists());
}

#[test]
fn procfiles() {
    let text = "web ./web\nworker:\nok: ./ok\nok: ./again\nquote: say \"hello\n";
    refused(
        3,
        "Procfile",
        text,
        &[
            "--> Procfile:1:1",
            "this is not NAME: COMMAND",
            "--> Procfile:2:1",
            "worker: the command is missing",
            "--> Procfile:4:1",
            "written twice",
            "--> Procfile:5:1",
            "a quote is opened",
            "4 mistakes",
        ],
    );
    refused(
        1,
        "Procfile",
        "# nothing\n",
        &["cannot make a single service of it: there is none in it"],
    );
    let place = Place::new();
    place.write("Procfile", "web: ./web\n");
    place.write(".env", "FINE=1\nnot fine\n");
    let told = place.fails(3, &["import", "Procfile"]);
    assert!(told.contains("--> .env:2:1") && told.contains("is not NAME=value"), "{told}");
    place.write(".env", "");
    let told = place.fails(2, &["import", "Procfile", "--formation", "web=many"]);
    assert!(told.contains("the formation `web=many`"), "{told}");
    let told = place.fails(3, &["import", "Procfile", "--env-file", "none.env"]);
    assert!(told.contains("there is no file none.env"), "{told}");
}

#[test]
fn supervisord_files() {
    refused(
        3,
        "supervisord.conf",
        "loose=1\n[program:a]\ncommand=a 'b\nstopsignal=NEVER\nnumprocs=lots\n[program:b\n[program:c]\nautorestart=maybe\nnonsense\n",
        &[
            "--> supervisord.conf:1:1",
            "before the first section",
            "--> supervisord.conf:3:1",
            "a quote is opened",
            "--> supervisord.conf:4:1",
            "no signal named",
            "--> supervisord.conf:5:1",
            "`lots` is no number",
            "--> supervisord.conf:6:1",
            "bracket",
            "--> supervisord.conf:7:1",
            "`command` is missing",
            "--> supervisord.conf:8:1",
            "`maybe` is none of",
            "--> supervisord.conf:9:1",
            "not KEY=VALUE",
        ],
    );
    refused(
        3,
        "a.conf",
        "[program:a]\ncommand=x 5% %(nothing)s\n",
        &["--> a.conf:2:1", "a % stands alone"],
    );
    refused(
        3,
        "a.conf",
        "[program:a]\ncommand=x %(nothing)s\n",
        &["--> a.conf:2:1", "`%(nothing)` has no value"],
    );
    refused(
        3,
        "a.conf",
        "[program:a]\ncommand=x\nenvironment=A\n",
        &["--> a.conf:3:1", "is not KEY=value"],
    );
    refused(1, "a.conf", "[supervisord]\n", &["there is none in it"]);
    refused(
        1,
        "a.conf",
        "[eventlistener:x]\ncommand=y\n",
        &["cannot make a single service of it", "event protocol"],
    );
}

#[test]
fn compose_files() {
    refused(3, "compose.yaml", "services:\n  web: [\n", &["--> compose.yaml:", "this is not YAML"]);
    refused(3, "compose.yaml", "", &["the file is empty"]);
    refused(3, "compose.yaml", "- a\n", &["--> compose.yaml:1:1", "expected a map"]);
    refused(3, "compose.yaml", "version: '3'\n", &["the key `services` is missing"]);
    refused(
        3,
        "compose.yaml",
        "services:\n  a: 5\n  b: { image: x, command: \"say 'x\" }\n  c: { image: x, command: y, restart: often }\n  \
         d: { image: x, command: y, stop_grace_period: long, mem_limit: much }\n  e: { image: x, command: { a: b } }\n",
        &[
            "--> compose.yaml:2:3",
            "expected a map of keys",
            "--> compose.yaml:3:18",
            "a quote is opened",
            "--> compose.yaml:4:30",
            "`often` is none of",
            "--> compose.yaml:5:30",
            "`long` is no duration",
            "`much` is no size",
            "--> compose.yaml:6:18",
        ],
    );
    refused(
        3,
        "compose.yaml",
        "services:\n  a: { image: x, image: y }\n",
        &["--> compose.yaml:2:18", "written twice"],
    );
    refused(
        1,
        "compose.yaml",
        "services:\n  db: { image: postgres }\n  cache: { image: redis, command: --save 60 1 }\n",
        &[
            "lost: compose.yaml:2: db:",
            "inside postgres, which needs an engine",
            "lost: compose.yaml:3: cache:",
        ],
    );
    // What services.yaml cannot hold is told at the key it came from.
    refused(
        3,
        "compose.yaml",
        "services:\n  a:\n    image: x\n    command: y\n    ulimits: { nofile: 3 }\n",
        &["--> compose.yaml:5:16", "`limits.nofile`: expected a whole number from 8"],
    );
}

#[test]
fn process_compose_files() {
    refused(
        3,
        "process-compose.yaml",
        "processes:\n\tweb:\n",
        &["--> process-compose.yaml:2:", "YAML"],
    );
    refused(3, "process-compose.yaml", "version: '0.5'\n", &["the key `processes` is missing"]);
    refused(
        3,
        "process-compose.yaml",
        "processes:\n  a: {}\n  b: { command: x, availability: { restart: often, backoff_seconds: soon } }\n  \
         c: { command: x, replicas: many, shutdown: { signal: 99 } }\n",
        &[
            "--> process-compose.yaml:2:3",
            "`command` is missing",
            "--> process-compose.yaml:3:36",
            "`often` is none of",
            "`soon` is no number of seconds",
            "--> process-compose.yaml:4:20",
            "expected a number",
            "1 to 64",
        ],
    );
}

#[test]
fn units() {
    refused(
        3,
        "a.service",
        "Loose=1\n[Service]\nExecStart=/bin/a 'b\nRestart=often\nRestartSec=soon\nKillSignal=SIGNEVER\n[Broken\nnonsense\n",
        &[
            "--> a.service:1:1",
            "before the first section",
            "--> a.service:3:1",
            "a quote is opened",
            "--> a.service:4:1",
            "no value of Restart",
            "--> a.service:5:1",
            "`soon` is no time",
            "--> a.service:7:1",
            "bracket",
            "--> a.service:8:1",
            "not Key=value",
        ],
    );
    refused(
        3,
        "a.service",
        "[Service]\nExecStart=/bin/a\nEnvironment=A\nWorkingDirectory=here\n",
        &["--> a.service:3:1", "not NAME=value", "--> a.service:4:1", "no absolute path"],
    );
    refused(1, "a.service", "[Service]\nType=oneshot\n", &["nothing says what to run"]);
    refused(
        1,
        "worker@.service",
        "[Service]\nExecStart=/bin/a %i\n",
        &["it is a template", "worker@NAME.service"],
    );
    refused(
        1,
        "a.timer",
        "[Timer]\nOnCalendar=daily\n",
        &["a.service, which it is for, is not part of this import"],
    );
}

#[test]
fn what_is_none_of_these() {
    refused(
        2,
        "notes.txt",
        "web: ./web\n",
        &["cannot tell what notes.txt is", "--from procfile|supervisord|compose"],
    );
    refused(
        2,
        "ecosystem.config.js",
        "module.exports = {}\n",
        &["a program in JavaScript", "pm2 prettylist"],
    );
    refused(
        3,
        "ecosystem.json",
        "{ \"apps\": [ { \"name\": \"a\" } ] }",
        &["`script` is missing", "--> ecosystem.json:1:"],
    );
    refused(3, "ecosystem.json", "{ \"apps\": [", &["this is not YAML", "ecosystem.json:1:"]);
    let place = Place::new();
    place.write("Procfile", "web: ./web\n");
    place.write("compose.yaml", "services: { web: { command: x } }\n");
    place.write("latin", "");
    std::fs::write(place.folder.join("latin"), b"web: \xff\n").unwrap();
    let told = place.fails(2, &["import", "Procfile", "compose.yaml"]);
    assert!(told.contains("cannot import Procfile and docker compose in one go"), "{told}");
    let told = place.fails(2, &["import", "compose.yaml", "--port", "1"]);
    assert!(told.contains("cannot use --port with docker compose"), "{told}");
    let told = place.fails(3, &["import", "--from", "procfile", "latin"]);
    assert!(told.contains("latin: cannot be read: it is not UTF-8 at byte 5"), "{told}");
    let told = place.fails(3, &["import", "nowhere/Procfile"]);
    assert!(told.contains("nowhere/Procfile: cannot be read: there is no such file"), "{told}");
    let told = place.fails(3, &["import", "--from", "procfile", "."]);
    assert!(told.contains("cannot be read"), "{told}");
    place.fails(2, &["import"]);
    place.fails(2, &["import", "--from", "cron", "Procfile"]);
    // A format that is said is the one that is read.
    place.write("notes.txt", "web: ./web\n");
    place.ok(&["import", "--from", "procfile", "notes.txt"]);
}
