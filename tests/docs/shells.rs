//! The completions, in the shells themselves: the script is loaded, words are completed, and what is
//! offered is what there is.

use std::fs;

use crate::place::Place;

const SERVICES: &str = "\
version: 1
services:
  web: { command: [sleep, '1000'], replicas: 2 }
  worker: { command: [sleep, '1000'] }
  mail: { command: [sleep, '1000'] }
";

/// A place with a configuration and its manager.
fn place(up: bool) -> Place {
    let place = Place::new();
    fs::write(place.folder.join("services.yaml"), SERVICES).unwrap();
    if up {
        let said = place.run("wharf up -d");
        assert_eq!(said.code, Some(0), "{}", said.text);
        // From here on only the manager knows the names.
        fs::write(place.folder.join("services.yaml"), "services: {").unwrap();
    }
    place
}

/// Asks a shell with this program; the offers, one a line.
fn offers(place: &Place, shell: &str, line: &str) -> Vec<String> {
    let script = match shell {
        "bash" => BASH,
        "zsh" => ZSH,
        _ => FISH,
    };
    let mut command = place.command("timeout");
    command.args(["20", shell]);
    if shell == "zsh" {
        command.arg("-f");
    }
    let output = command.args(["-c", script, "complete", line]).output().unwrap();
    let words = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(words.is_empty(), "{shell}, {line:?}: {words}");
    let offered = String::from_utf8_lossy(&output.stdout).into_owned();
    offered.lines().map(|line| line.split('\t').next().unwrap().trim().to_owned()).collect()
}

/// What bash does at a press of the key, with the function that the script registers.
const BASH: &str = r#"
source <(wharf completions bash)
function=$(complete -p wharf | sed 's/.* -F \([^ ]*\) .*/\1/')
read -ra COMP_WORDS <<< "$1"
[[ $1 == *" " ]] && COMP_WORDS+=("")
COMP_CWORD=$((${#COMP_WORDS[@]} - 1)) COMP_TYPE=9 COMP_LINE=$1 COMP_POINT=${#1}
# Outside of readline there are no options of completion to set.
compopt() { return 1; }
$function wharf "${COMP_WORDS[COMP_CWORD]}" "${COMP_WORDS[COMP_CWORD-1]}"
IFS=$'\013'
printf '%s' "${COMPREPLY[*]}" | tr '\013' '\n'
"#;

/// zsh completes in a terminal only: one is made, the key is pressed, and what would be described to
/// the user is printed instead.
const ZSH: &str = r#"
zmodload zsh/zpty
zpty -b inner zsh -f -i
zpty -w inner 'PS1= PS2= RPS1=; stty -echo; autoload -U compinit; compinit -u -D'
zpty -w inner 'source <(wharf completions zsh); setopt no_beep; unsetopt zle_bracketed_paste'
zpty -w inner '_describe() { print -rl "" "<<<" ${(P)3} ">>>" }; print load""ed'
zpty -r -m inner said '*loaded*'
zpty -w -n inner "$1"$'\t'
zpty -r -m inner said '*<<<*>>>*'
print -r -- "${${said#*<<<}%%>>>*}" | tr -d '\r' | sed '/^ *$/d; s/:.*//'
zpty -d inner
"#;

const FISH: &str = r"
wharf completions fish | source
complete -C $argv[2]
";

#[test]
fn commands_options_and_values_are_completed_in_each_shell() {
    let place = place(false);
    for shell in ["bash", "zsh", "fish"] {
        assert_eq!(offers(&place, shell, "wharf sta"), ["status", "start"], "{shell}");
        assert_eq!(offers(&place, shell, "wharf --color a"), ["auto", "always"], "{shell}");
        let reasons = offers(&place, shell, "wharf exits --reason o");
        assert_eq!(reasons, ["oom_killed"], "{shell}");
        // There is no manager: the configuration has the names.
        assert_eq!(offers(&place, shell, "wharf stop w"), ["web", "worker"], "{shell}");
        assert_eq!(offers(&place, shell, "wharf logs -f m"), ["mail"], "{shell}");
    }
}

#[test]
fn names_are_those_of_the_manager_that_runs() {
    let place = place(true);
    for shell in ["bash", "zsh", "fish"] {
        let expected = ["web", "worker", "web/1", "web/2"];
        assert_eq!(offers(&place, shell, "wharf restart w"), expected, "{shell}");
    }
    let elsewhere = Place::new();
    let line = format!("wharf --state-dir {}/.wharf why ma", place.folder.display());
    assert_eq!(offers(&elsewhere, "bash", &line), ["mail"]);
    assert!(offers(&elsewhere, "bash", "wharf why ma").is_empty());
}

#[test]
fn nothing_is_said_where_there_is_nothing_to_offer() {
    let place = Place::new();
    for (shell, words) in [("bash", "-- wharf stop x"), ("tcsh", "-- wharf st"), ("bash", "ps")] {
        let said =
            place.run(&format!("WHARF_COMPLETE={shell} _CLAP_COMPLETE_INDEX=2 wharf {words}"));
        assert_eq!((said.text.as_str(), said.code), ("", Some(0)), "{shell} {words}");
    }
}
