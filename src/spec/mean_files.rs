//! The files that a program reads its own configuration from, and how it is told to read them again.

use std::collections::BTreeMap;
use std::path::PathBuf;

use super::mean::Subject;
use super::{Contents, Service, SignalName, written};
use crate::exit::Signal;

/// The most files and folders that a service names.
const MOST_FILES: usize = 256;

/// The files and folders, each with what stands in it now.
pub(super) fn config_files(
    subject: &mut Subject<'_, '_>,
    written: Option<Vec<written::Word>>,
) -> BTreeMap<PathBuf, Contents> {
    let mut files = BTreeMap::new();
    if written.as_ref().is_some_and(|written| written.len() > MOST_FILES) {
        let message = format!("a service names at most {MOST_FILES} files and folders");
        subject.complain(&["config_files"], message);
        return files;
    }
    for (at, path) in written.unwrap_or_default().into_iter().enumerate() {
        let number = at.to_string();
        let place = ["config_files", number.as_str()];
        let written = path.0;
        if written.is_empty() || written.contains('\0') {
            subject.complain(&place, "this is not a path");
            continue;
        }
        let path = subject.beside(&written);
        let contents = match subject.contents(&path) {
            Ok(contents) => contents,
            Err(trouble) => {
                subject.complain(&place, format!("{written}: {trouble}"));
                continue;
            }
        };
        if let Some(trouble) = contents.trouble() {
            subject.warn(
                &place,
                format!("{written} cannot be read now: {trouble}"),
                "a reload that can read it takes that for a change",
            );
        }
        if files.insert(path, contents).is_some() {
            subject.complain(&place, format!("{written} is there already"));
        }
    }
    files
}

/// The signal at which it reads them again.
pub(super) fn reload_signal(
    subject: &mut Subject<'_, '_>,
    written: Option<written::SignalText>,
) -> Option<SignalName> {
    let signal = written?.0;
    if [Signal::KILL, Signal::STOP].contains(&signal) {
        subject.complain(&["reload_signal"], format!("no program can hear {signal}"));
    }
    Some(SignalName(signal))
}

/// The rules between the two.
pub(super) fn rules(subject: &mut Subject<'_, '_>, service: &Service) {
    if service.reload_signal.is_some() && service.config_files.is_empty() {
        subject.warn(
            &["reload_signal"],
            "it is sent where a reload finds a file of `config_files` changed, and there is none",
            "name the files and folders that the program reads",
        );
    }
}
