//! What a journal must hold, as far as others know.

use std::{collections::BTreeMap, path::Path};

use super::{
    acknowledged::{self, Found, Mark},
    entry::Entry,
    error::{DATABASE, StoreError},
    identity::{self, Generation},
    journal::{Journal, Record, Replay},
    key::StoreKey,
    opening::{Opening, Recovery},
    sled::Contents,
};

/// How far a journal may be ahead of a mark: one record that was not acknowledged when the process
/// ended, and one whose place in the file of the mark is damaged.
const AHEAD: u64 = 2;

/// A journal, and what there is to compare it with.
pub(super) struct Proof<'a> {
    pub(super) opening: &'a Opening<'a>,
    pub(super) journal: &'a Journal,
    pub(super) replay: &'a Replay,
    pub(super) index: Option<&'a Contents>,
}

/// A journal that is proved.
#[derive(Default)]
pub(super) struct Proved {
    /// The record that it lacks and the database has, with its text.
    pub(super) given_back: Option<(Record, Vec<u8>)>,
    /// What is to be said.
    pub(super) recovery: Option<Recovery>,
}

impl Proof<'_> {
    /// Refuses a journal that is another one, or is not known to hold every acknowledged record.
    /// One that lacks only the last gets it back from the database.
    pub(super) fn check(&self, found: Found, named: Option<&str>) -> Result<Proved, StoreError> {
        let given_back = self.next();
        let reach = self.written() + u64::from(given_back.is_some());
        if let Some(known) = self.opening.known {
            self.is_known(known, named, reach)?;
        }
        let recovery = match (found, self.opening.known) {
            (Found::Mark(mark), _) => self.reaches(mark, self.opening.mark, reach).map(|()| None),
            (found, None) => self.proves_former(found),
            (_, Some(_)) if self.index_proves() => Ok(Some(Recovery::Proven)),
            (Found::Missing, Some(_)) => Err(self.unproven(self.opening.mark, "missing")),
            (Found::Damaged, Some(_)) => Err(self.unproven(self.opening.mark, "damaged")),
        }?;
        let applied = self.applied().unwrap_or_default();
        if applied > reach {
            return Err(self.short(applied, &self.opening.dir.join(DATABASE)));
        }
        Ok(Proved { given_back, recovery })
    }

    fn written(&self) -> u64 {
        self.journal.last().seq
    }

    fn applied(&self) -> Option<u64> {
        self.index.and_then(|contents| contents.applied)
    }

    /// The record that the database has and the journal lacks, if it is the next one.
    fn next(&self) -> Option<(Record, Vec<u8>)> {
        let text = self.index?.last.clone()?;
        let record: Record = serde_json::from_slice(&text).ok()?;
        let is_next = Some(record.seq) == self.applied() && record.seq == self.written() + 1;
        is_next.then_some((record, text))
    }

    /// Refuses a store that is another one than a witness saw, or an older one.
    fn is_known(
        &self,
        known: &Generation,
        named: Option<&str>,
        reach: u64,
    ) -> Result<(), StoreError> {
        if named != Some(known.identity()) {
            return Err(StoreError::Foreign {
                path: identity::file(self.opening.dir),
                found: named.map_or_else(|| "is missing".into(), |id| format!("says {id}").into()),
                expected: known.identity().into(),
                witness: self.opening.witness.to_owned(),
                records: self.written(),
                step: self.opening.accept.step(),
            });
        }
        self.holds(known.last(), self.opening.witness, reach)
    }

    /// Refuses a journal that lacks the record at `mark`, of which `witness` knows.
    fn holds(&self, mark: Mark, witness: &Path, reach: u64) -> Result<(), StoreError> {
        if mark.seq > reach {
            return Err(self.short(mark.seq, witness));
        }
        let Some(before) = mark.seq.checked_sub(1) else { return Ok(()) };
        let known = usize::try_from(before).ok().and_then(|at| self.replay.hashes.get(at));
        match known {
            Some(hash) if *hash == mark.hash => Ok(()),
            Some(_) => Err(self.foreign(mark.seq, witness)),
            // It comes back from the database, if that has the very same.
            None if self.next().map(|(_, text)| self.journal.next(&text)) == Some(mark) => Ok(()),
            None => Err(self.short(mark.seq, witness)),
        }
    }

    /// [`Self::holds`], for the mark of the last acknowledged record: many more were not written
    /// after it.
    fn reaches(&self, mark: Mark, witness: &Path, reach: u64) -> Result<(), StoreError> {
        self.holds(mark, witness, reach)?;
        if self.written() <= mark.seq + AHEAD {
            return Ok(());
        }
        Err(StoreError::MarkBehind {
            path: self.opening.dir.join("journal"),
            records: self.written(),
            witness: witness.to_owned(),
            marked: mark.seq,
            step: self.opening.accept.step(),
        })
    }

    /// A store of a former version has its mark inside, the first version has none: then it was the
    /// database that a journal had to reach, and lagged behind where the process was killed.
    fn proves_former(&self, found: Found) -> Result<Option<Recovery>, StoreError> {
        let inside = acknowledged::former_file(self.opening.dir);
        let reach = self.written() + u64::from(self.next().is_some());
        match (found, acknowledged::read(&inside)?) {
            (Found::Missing, Found::Mark(mark)) => {
                self.reaches(mark, &inside, reach).map(|()| None)
            }
            (Found::Missing, Found::Missing) => match self.applied() {
                Some(applied) => {
                    Ok(Some(Recovery::Unmarked(self.written().saturating_sub(applied))))
                }
                None => Err(self.unproven(&self.opening.dir.join(DATABASE), "missing or damaged")),
            },
            _ if self.index_proves() => Ok(Some(Recovery::Proven)),
            (Found::Missing, _) => Err(self.unproven(&inside, "damaged")),
            _ => Err(self.unproven(self.opening.mark, "damaged")),
        }
    }

    /// Whether the database says exactly what the journal says.
    fn index_proves(&self) -> bool {
        let records = &self.replay.records;
        let proves = |contents: &Contents| {
            contents.applied == Some(self.written()) && contents.entries == fold(records)
        };
        !self.replay.torn_tail && self.index.is_some_and(proves)
    }

    fn short(&self, applied: u64, witness: &Path) -> StoreError {
        StoreError::JournalShort {
            path: self.opening.dir.join("journal"),
            records: self.written(),
            applied,
            witness: witness.to_owned(),
            step: self.opening.accept.step(),
        }
    }

    fn foreign(&self, seq: u64, witness: &Path) -> StoreError {
        StoreError::JournalForeign {
            path: self.opening.dir.join("journal"),
            seq,
            records: self.written(),
            witness: witness.to_owned(),
            step: self.opening.accept.step(),
        }
    }

    fn unproven(&self, witness: &Path, state: &'static str) -> StoreError {
        StoreError::Unproven {
            path: self.opening.dir.join("journal"),
            records: self.written(),
            witness: witness.to_owned(),
            state,
            step: self.opening.accept.step(),
        }
    }
}

/// The objects that records leave.
pub(super) fn fold(records: &[Record]) -> BTreeMap<StoreKey, Entry> {
    let mut entries = BTreeMap::new();
    for record in records {
        match &record.value {
            Some(value) => {
                let entry =
                    Entry { key: record.key.clone(), revision: record.seq, value: value.clone() };
                entries.insert(record.key.clone(), entry);
            }
            None => drop(entries.remove(&record.key)),
        }
    }
    entries
}
