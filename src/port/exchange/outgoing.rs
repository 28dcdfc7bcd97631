//! What is being written to the program: framed messages in their order, and how far it has got.

use std::collections::VecDeque;
use std::io::IoSlice;

use serde::{Deserialize, Serialize};

use super::pieces::Pieces;
use super::words::Chunk;

/// As much is taken out of turn-taking at once as a pipe holds by default.
const AHEAD: u64 = 64 << 10;

/// And at most this many messages, so that one write takes few pieces and turns stay fair.
const AHEAD_MESSAGES: usize = 64;

/// A framed message.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Item {
    /// The request it is, or belongs to.
    pub(super) id: u64,
    pub(super) what: What,
    pub(super) pieces: Pieces,
    /// The bytes in `pieces`.
    pub(super) size: u64,
    /// How many of them have been written.
    pub(super) done: u64,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum What {
    Send,
    Call,
    /// Follows a call to mark the end of its reply.
    Sentinel,
    /// Asks whether the program is ready. It is nobody's request.
    Question,
    /// A frame of wire protocol 1 that is nobody's request.
    Control,
}

/// The messages on their way. Empty, it owns no memory.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub(super) struct Outgoing {
    items: VecDeque<Item>,
    /// The bytes of `items` that have not been written.
    unwritten: u64,
    /// All bytes written since the program started.
    written: u64,
    /// The bytes that were handed out and may be in the hands of the kernel by now.
    #[serde(skip)]
    offered: u64,
}

/// What a write did to a message.
pub(super) enum Progress {
    /// The first byte of a message was written.
    Begun {
        /// The request it is, or belongs to.
        id: u64,
        what: What,
        /// So many bytes into the stream.
        from: u64,
    },
    /// All of it has been written.
    Complete(Item),
}

impl Outgoing {
    pub(super) fn is_empty(&self) -> bool {
        self.items.is_empty()
    }

    /// Whether part of a message has been written and the rest has not.
    pub(super) fn is_in_the_middle(&self) -> bool {
        self.items.front().is_some_and(|item| item.done > 0)
    }

    /// All bytes written since the program started.
    pub(super) fn written(&self) -> u64 {
        self.written
    }

    /// Whether another message should be taken out of turn-taking.
    pub(super) fn wants_more(&self) -> bool {
        self.unwritten < AHEAD && self.items.len() < AHEAD_MESSAGES
    }

    pub(super) fn push(&mut self, item: Item) {
        self.unwritten += item.size;
        self.items.push_back(item);
    }

    /// The next bytes to write. Large pieces are given whole, small ones together.
    pub(super) fn chunk(&mut self) -> Option<Chunk> {
        let mut pieces = Vec::new();
        let mut total = 0;
        for item in &self.items {
            let mut skip = item.done;
            for piece in item.pieces.iter() {
                let length = size(piece.len());
                let skipped = skip.min(length);
                skip -= skipped;
                if skipped < length {
                    pieces.push(piece.slice(usize::try_from(skipped).unwrap_or(usize::MAX)..));
                    total += length - skipped;
                }
            }
            if total >= AHEAD {
                break;
            }
        }
        self.offered = total;
        (!pieces.is_empty()).then_some(Chunk { at: self.written, pieces })
    }

    /// Gives `write` the same bytes where they are, and with them how many they are; its answer. `None`
    /// where there are none.
    pub(super) fn lend<T>(&self, write: impl FnOnce(&[IoSlice<'_>], usize) -> T) -> Option<T> {
        let (mut one, mut several) = ([IoSlice::new(&[]); Pieces::MOST], Vec::new());
        let (mut count, mut total) = (0, 0);
        // A message that is alone, as that of a call often is, needs no list.
        let alone = self.items.len() == 1;
        if !alone {
            several.reserve(self.items.len().min(AHEAD_MESSAGES));
        }
        for item in &self.items {
            let mut skip = item.done;
            for piece in item.pieces.iter() {
                let skipped =
                    usize::try_from(skip).map_or(piece.len(), |skip| skip.min(piece.len()));
                skip -= size(skipped);
                if skipped == piece.len() {
                    continue;
                }
                let slice = IoSlice::new(&piece[skipped..]);
                total += slice.len();
                if alone {
                    one[count] = slice;
                    count += 1;
                } else {
                    several.push(slice);
                }
            }
            if size(total) >= AHEAD {
                break;
            }
        }
        let slices = if alone { &one[..count] } else { &several };
        (total > 0).then(|| write(slices, total))
    }

    /// So many bytes have been written. Tells `seen` what that did, in order.
    pub(super) fn wrote(&mut self, bytes: u64, mut seen: impl FnMut(Progress)) {
        self.offered = 0;
        let mut left = bytes.min(self.unwritten);
        while left > 0 {
            let Some(item) = self.items.front_mut() else { break };
            if item.done == 0 {
                seen(Progress::Begun { id: item.id, what: item.what, from: self.written });
            }
            let now = left.min(item.size - item.done);
            item.done += now;
            left -= now;
            self.written += now;
            self.unwritten -= now;
            if item.done < item.size {
                break;
            }
            if let Some(item) = self.items.pop_front() {
                seen(Progress::Complete(item));
            }
        }
        self.release();
    }

    /// Takes back a request of this kind, with its sentinel, unless a byte of it is written or handed
    /// out. Gives the size of the request itself.
    pub(super) fn withdraw(&mut self, id: u64, what: What) -> Option<u64> {
        let mut before = 0;
        let at = self.items.iter().position(|item| {
            before += item.size - item.done;
            item.id == id && item.what == what
        })?;
        let item = &self.items[at];
        if item.done > 0 || before - item.size < self.offered {
            return None;
        }
        let size = item.size;
        self.items.retain(|item| item.id != id || item.done > 0);
        self.unwritten = self.items.iter().map(|item| item.size - item.done).sum();
        self.release();
        Some(size)
    }

    /// Lets go of everything, in order. With each item comes the place of its first byte in the
    /// stream, or where that would have been.
    pub(super) fn drain(&mut self) -> Vec<(u64, Item)> {
        let mut at = self.written;
        let items = std::mem::take(&mut self.items).into_iter().map(|item| {
            let from = at - item.done;
            at = from + item.size;
            (from, item)
        });
        let items = items.collect();
        self.unwritten = 0;
        self.offered = 0;
        items
    }

    /// How many messages it has memory for.
    #[cfg(test)]
    pub(super) fn capacity(&self) -> usize {
        self.items.capacity()
    }

    fn release(&mut self) {
        if self.items.is_empty() {
            self.items = VecDeque::new();
        }
    }
}

/// A length of memory as a size in bytes.
pub(super) fn size(length: usize) -> u64 {
    u64::try_from(length).unwrap_or(u64::MAX)
}
