//! The index of hashed files, as folders use it.

use std::path::Path;
use std::sync::Arc;

use crate::LibraryError;
use crate::index::Index;
use crate::library_state::LibraryState;

/// The index of hashed files: that of a library, or of a process without one. Clones share it.
#[derive(Clone)]
pub struct HashIndex(Source);

#[derive(Clone)]
enum Source {
    Library(Arc<LibraryState>),
    Own(Arc<Index>),
}

impl HashIndex {
    /// Opens the index in a state directory, which no library of this process has open.
    ///
    /// # Errors
    ///
    /// [`LibraryError`] if another process has it open, or it cannot be read.
    pub fn open(state_dir: &Path) -> Result<HashIndex, LibraryError> {
        Ok(HashIndex(Source::Own(Arc::new(Index::open(state_dir)?))))
    }

    pub(crate) fn of_library(state: Arc<LibraryState>) -> HashIndex {
        HashIndex(Source::Library(state))
    }

    pub(crate) fn index(&self) -> &Index {
        match &self.0 {
            Source::Library(state) => &state.index,
            Source::Own(index) => index,
        }
    }
}
