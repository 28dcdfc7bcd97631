//! The same thing for several names: each on its own, and one exit code for all.

use super::client::{Client, Question, Reply};
use super::failure::{Failure, OK, PARTLY};
use super::out;

/// Asks all at once. `done` tells of an answer; a refusal is told on standard error.
pub(super) fn each(
    client: &Client,
    questions: Vec<Question>,
    mut done: impl FnMut(&Reply) -> Result<(), Failure>,
) -> Result<u8, Failure> {
    let mut codes = Vec::new();
    for answer in client.ask_all(questions) {
        let code = match answer {
            Ok(reply) => {
                done(&reply)?;
                OK
            }
            Err(failure) => {
                out::say(&failure.text());
                failure.code()
            }
        };
        codes.push(code);
    }
    Ok(together(&codes))
}

/// One code for many: theirs where they agree, 7 where only some were done, otherwise 1.
fn together(codes: &[u8]) -> u8 {
    match codes {
        [] => OK,
        [first, others @ ..] if others.iter().all(|code| code == first) => *first,
        _ if codes.contains(&OK) => PARTLY,
        _ => super::failure::FAILED,
    }
}

#[cfg(test)]
mod tests {
    use super::together;

    #[test]
    fn several_names_have_one_code() {
        for (codes, code) in [
            (&[][..], 0),
            (&[0, 0], 0),
            (&[4], 4),
            (&[4, 4], 4),
            (&[4, 5], 1),
            (&[0, 4], 7),
            (&[5, 0, 4], 7),
        ] {
            assert_eq!(together(codes), code, "{codes:?}");
        }
    }
}
