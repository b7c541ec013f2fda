//! Reading single files of a folder, without receiving it: the list is held in memory, and nothing
//! is written or announced.

use std::sync::Arc;

use qshare_content::manifest::{FolderList, MANIFEST_MAX_BYTES, ManifestError};
use qshare_storage::Target;

use super::receive::{FolderFetchError, FolderRequest};
use crate::access::Access;
use crate::downloads::{CollectionSources, DownloadRequest, Downloads, StreamError};
use crate::error::DownloadError;
use crate::runtime::blocking;

/// The list of a folder whose files can be read one by one.
pub struct FolderReader {
    request: FolderRequest,
    list: Arc<FolderList>,
    sources: Arc<CollectionSources>,
}

impl FolderReader {
    /// Reads the list of a folder, and validates it.
    pub(crate) async fn open(
        downloads: &Arc<Downloads>,
        request: FolderRequest,
    ) -> Result<FolderReader, FolderFetchError> {
        let info = request.manifest;
        if info.length > MANIFEST_MAX_BYTES {
            return Err(FolderFetchError::Invalid(ManifestError::TooLong));
        }
        let wanted = DownloadRequest::new(request.name.clone(), info, Target::Path("".into()))
            .holders(request.holders.clone())
            .nodes(request.nodes.clone())
            .share_key(request.share_key.clone())
            .give_up_after(request.give_up_after);
        let reader = downloads.read(wanted, 0..info.length);
        let mut reader = reader.map_err(failed)?;
        let mut bytes = Vec::new();
        while let Some(more) = reader.next().await.map_err(failed)? {
            bytes.extend_from_slice(&more);
        }
        let list = blocking(move || FolderList::read(&bytes[..], info)).await;
        let list = Arc::new(list.map_err(FolderFetchError::Invalid)?);
        let access = Access::new(&info, request.share_key.as_ref());
        let (known, nodes) = (request.holders.clone(), &request.nodes);
        let sources = downloads.collection_sources(access, list.file_count(), known, nodes);
        Ok(FolderReader {
            request,
            list,
            sources,
        })
    }

    /// Returns the list.
    pub fn list(&self) -> &Arc<FolderList> {
        &self.list
    }

    /// Returns the request to read a file with [`crate::Node::read`]. Its holders are those of the
    /// folder.
    pub fn request(&self, at: u32) -> Option<DownloadRequest> {
        let file = self.list.file(at)?;
        let access = self.request.share_key.as_ref().map(|key| {
            let collection = Access::new(&self.request.manifest, Some(key));
            Access::member(&file.info, key, &collection)
        });
        let request = DownloadRequest::new(file.name, file.info, Target::Path("".into()))
            .holders(self.sources.holders_of(at))
            .nodes(self.request.nodes.clone())
            .sources(self.sources.clone())
            .access_as(access)
            .give_up_after(self.request.give_up_after);
        Some(request)
    }
}

fn failed(error: StreamError) -> FolderFetchError {
    FolderFetchError::Download(match error {
        StreamError::Failed(error) => error,
        error => Arc::new(DownloadError::Internal(error.to_string())),
    })
}
