//! Procfile, as foreman and Heroku read it.

use std::path::Path;

use serde_json::Value;

use super::ImportError;
use super::command::{Line, assignment, escape, look, reference, words};
use super::draft::{Draft, Origin};
use super::job::{Job, place};
use super::table::{Row, carried, lost, noted};
use crate::spec::{Node, parse};

/// What becomes of what a Procfile and its neighbours say.
#[rustfmt::skip]
pub(super) const TABLE: &[Row] = &[
    carried("NAME: COMMAND", "`services.NAME.command`", "`shell: true` only where the line needs a shell; a single command gets `exec` before it"),
    carried("A=b COMMAND", "`environment`", "where nothing else in the line needs a shell"),
    carried("$NAME", "`environment: { NAME: \"${NAME:-}\" }`", "the environment is clean: what a line refers to is passed on by name"),
    carried("release", "`restart: no`", "runs once, beside the others and not before them"),
    carried(".env", "`environment`", "values are copied; `--env-file FILE` names others"),
    carried("PORT", "`environment: { PORT }`", "5000 + 100·n, or `--port`, `PORT` of .env or `port` of .foreman in place of 5000; further replicas count on from it"),
    carried("formation", "`replicas`", "`--formation web=2,all=1`, or `formation` or `concurrency` of .foreman"),
    carried("env", "`environment`", "of .foreman"),
    carried("port", "`environment: { PORT }`", "of .foreman"),
    carried("concurrency", "`replicas`", "of .foreman"),
    lost("timeout", "foreman's time to stop is the same for all", "write `stop_grace_period` below each service"),
    noted("one ends, all end", "foreman stops everything when one process ends; wharf restarts what fails"),
    noted("environment", "foreman's processes see all of its environment; wharf's see PATH, HOME, USER, LANG, TZ and what is written"),
];

/// One line of a Procfile.
struct Process {
    name: String,
    line: String,
    from: Origin,
}

/// What stands around the Procfile.
#[derive(Default)]
struct Surroundings {
    /// The variables of the environment files.
    variables: Vec<(String, String)>,
    formation: Vec<(String, u32)>,
    port: u16,
}

/// Reads the Procfiles.
pub(super) fn read(job: &mut Job<'_>, files: &[usize]) -> Result<(), ImportError> {
    for &file in files {
        let processes = processes(job, file);
        let around = surroundings(job, file)?;
        let folder = job.folder(file);
        for (at, process) in processes.iter().enumerate() {
            let port = usize::from(around.port) + 100 * at;
            let draft = service(job, process, &around, port, &folder);
            job.drafts.push(draft);
        }
        let top = |key: &str| Origin::new(key, Job::top(file));
        job.note(
            &top("environment"),
            "processes do not see the environment of `wharf up`: only PATH, HOME, USER, LANG, TZ and \
             what is written below",
        );
        job.note(
            &top("restart"),
            "foreman ends all when one process ends; here what fails is restarted",
        );
    }
    Ok(())
}

fn processes(job: &mut Job<'_>, file: usize) -> Vec<Process> {
    let text = job.sources[file].text.clone();
    let mut processes: Vec<Process> = Vec::new();
    let mut at = 0;
    for whole in text.split_inclusive('\n') {
        let (start, line) = (at, whole.trim());
        at += whole.len();
        if line.is_empty() || line.starts_with('#') {
            continue;
        }
        let spot = place(file, start, start + whole.trim_end().len());
        let named = line.split_once(':').map(|(name, line)| (name.trim(), line.trim()));
        let good = |c: char| c.is_ascii_alphanumeric() || matches!(c, '_' | '-' | '.');
        match named {
            Some((name, line)) if !name.is_empty() && name.chars().all(good) => {
                let from = Origin::new(name, spot);
                if line.is_empty() {
                    job.wrong(&from, "the command is missing", "write NAME: COMMAND");
                } else if shell_words::split(line).is_err() {
                    job.wrong(&from, "a quote is opened and not closed", "");
                } else if processes.iter().any(|process| process.name == name) {
                    job.wrong(&from, "the process is written twice", "give one another name");
                } else {
                    processes.push(Process { name: name.to_owned(), line: line.to_owned(), from });
                }
            }
            _ => {
                let from = Origin::new(String::new(), spot);
                job.wrong(&from, "this is not NAME: COMMAND", "begin a comment with #");
            }
        }
    }
    processes
}

fn surroundings(job: &mut Job<'_>, file: usize) -> Result<Surroundings, ImportError> {
    let folder = job.folder(file);
    let mut around = Surroundings { port: 5000, ..Surroundings::default() };
    let mut formation = job.order.formation.clone();
    let mut env_files = job.order.env_files.clone();
    if let Some(foreman) = job.open(&folder.join(".foreman")) {
        let options = parse(foreman, &job.sources, &mut job.found);
        for entry in options.iter().flat_map(Node::entries) {
            let from = super::job::key_origin(entry);
            let text = entry.value.text().unwrap_or_default().to_owned();
            match entry.key.as_str() {
                "formation" | "concurrency" => formation = formation.or(Some(text)),
                "port" => match text.parse() {
                    Ok(port) => around.port = port,
                    Err(_) => job.wrong(&from, format!("`{text}` is no port"), ""),
                },
                "env" if env_files.is_empty() => {
                    env_files = text.split(',').map(|name| folder.join(name.trim())).collect();
                }
                "env" => {}
                _ => job.lose_by(TABLE, &from),
            }
        }
    }
    let usual = env_files.is_empty();
    let files = if usual { vec![folder.join(".env")] } else { env_files };
    for path in files {
        match job.variables(&path) {
            Some(variables) => {
                job.copied(&path);
                around.variables.extend(variables);
            }
            None if usual => {}
            None => {
                let from = Origin::new("env", Job::top(file));
                job.wrong(&from, format!("there is no file {}", job.shown(&path)), "");
            }
        }
    }
    if let Some((_, port)) = around.variables.iter().rev().find(|(name, _)| name == "PORT") {
        around.port = port.parse().unwrap_or(around.port);
    }
    around.variables.retain(|(name, _)| name != "PORT");
    around.port = job.order.port.unwrap_or(around.port);
    around.formation = formation.map(|text| counts(&text)).transpose()?.unwrap_or_default();
    Ok(around)
}

/// `web=2,all=1` as pairs.
fn counts(text: &str) -> Result<Vec<(String, u32)>, ImportError> {
    let wrong = || ImportError::Formation(text.to_owned());
    let pairs = text.split(',').map(str::trim).filter(|pair| !pair.is_empty());
    pairs
        .map(|pair| {
            let (name, count) = pair.split_once(['=', ':']).ok_or_else(wrong)?;
            let count = count.trim().parse().ok().filter(|count| *count <= 1000);
            Ok((name.trim().to_owned(), count.ok_or_else(wrong)?))
        })
        .collect()
}

fn service(
    job: &mut Job<'_>,
    process: &Process,
    around: &Surroundings,
    port: usize,
    folder: &Path,
) -> Draft {
    let from = &process.from;
    let mut draft = job.draft(&process.name, from);
    let count = |name: &str| around.formation.iter().rev().find(|(n, _)| n == name);
    let replicas = count(&process.name).or_else(|| count("all")).map_or(1, |(_, count)| *count);
    for (name, value) in &around.variables {
        draft.variable(name, escape(value));
    }
    let (mut line, look) = command(&mut draft, process);
    let shell = look.needs_shell || replicas > 1;
    if replicas > 1 {
        // Each replica has a port of its own, which only the line itself can work out.
        let start = if look.compound { "" } else { "exec " };
        let first = port.saturating_sub(1);
        line = format!("export PORT=$(({first} + WHARF_REPLICA)); {start}{line}");
    } else {
        draft.variable("PORT", port.to_string());
        if look.needs_shell && !look.compound {
            line = format!("exec {line}");
        }
    }
    if shell {
        draft.put("command", escape(&line), from);
        draft.put("shell", true, from);
    } else {
        let split = shell_words::split(&line).unwrap_or_default();
        let split: Vec<_> = split.iter().map(|word| escape(word)).collect();
        draft.put("command", words(&split), from);
    }
    pass_on(&mut draft, &look, from);
    if let Some(folder) = job.working_dir(folder) {
        draft.put("working_dir", escape(&folder), from);
    }
    if replicas != 1 {
        draft.put("replicas", replicas, from);
    }
    if process.name == "release" {
        draft.put("restart", "no", from);
        draft.note(from, "runs once at the start, beside the others and not before them");
    }
    draft.put("stop_grace_period", "5s", from);
    draft
}

/// The line without assignments that are better an environment.
fn command(draft: &mut Draft, process: &Process) -> (String, Line) {
    let mut line = process.line.as_str();
    let whole = look(line);
    if let Some(rest) = line.strip_prefix("exec ")
        && !look(rest).compound
    {
        line = rest.trim_start();
    }
    let mut after = line.strip_prefix("env ").unwrap_or(line).trim_start();
    let mut set = Vec::new();
    while let Some((name, value)) = after.split_whitespace().next().and_then(assignment)
        && !value.contains(['\'', '"', '\\', '$', '`'])
    {
        set.push((name, value));
        after = after[name.len() + 1 + value.len()..].trim_start();
    }
    let rest = look(after);
    // A variable that the line itself refers to has another value there than in the program.
    let refers = set.iter().any(|(name, _)| whole.variables.iter().any(|known| known == name));
    let begins = line.len() == after.len() && after.starts_with('-');
    if !set.is_empty() && !rest.compound && !refers && !after.is_empty() && !begins {
        for (name, value) in set {
            draft.variable(name, escape(value));
        }
        return (after.to_owned(), rest);
    }
    (line.to_owned(), look(line))
}

/// Passes on what a line refers to and nobody sets.
pub(super) fn pass_on(draft: &mut Draft, line: &Line, from: &Origin) {
    for name in &line.variables {
        if name == "PORT" || draft.has_variable(name) {
            continue;
        }
        draft.variable(name, reference(name, "").map_or(Value::Null, Value::String));
        draft.note(from, format!("${name} is taken from the environment of `wharf up`"));
    }
}
