//! A folder that an argument means, and who has it.

use std::path::PathBuf;
use std::time::Duration;

use qshare_node::content::{AssetName, ContentInfo, Link, NodeAddress, Query, ShareKey};
use qshare_node::{
    Contact, DownloadRequest, FindError, Findings, FolderFound, FolderRequest, FolderTerms, Follow,
    FoundFile, Node, Target,
};

use crate::argument::glob_of_folder;
use crate::choice;
use crate::commands::ls::LISTING_MAX;
use crate::exit::{Exit, Failure};
use crate::messages::{self, Reader};

/// Files of a folder that are looked up for their holders.
pub(crate) const SAMPLE: usize = 64;
/// Deadline for that lookup.
pub(crate) const SAMPLE_DEADLINE: Duration = Duration::from_secs(10);

/// A folder that is found, but not looked at.
#[derive(Debug)]
pub(crate) struct FolderSource {
    /// Its name where it is downloaded.
    pub(crate) name: AssetName,
    /// Length and root of its list of files.
    pub(crate) manifest: ContentInfo,
    /// Length and root of its modification times.
    pub(crate) times: Option<ContentInfo>,
    /// The key of a private share.
    pub(crate) key: Option<ShareKey>,
    pub(crate) holders: Vec<Contact>,
    /// Nodes that a link names.
    pub(crate) nodes: Vec<NodeAddress>,
    /// How it is looked up again; None if this version is wanted and no other.
    pub(crate) follow: Option<Follow>,
}

/// A folder that was found by its name, and the number of its other versions.
pub(crate) struct FoundFolder {
    pub(crate) source: FolderSource,
    pub(crate) other_versions: usize,
}

impl FolderSource {
    /// The folder of a link, which a stranger may have named.
    pub(crate) fn of_link(link: &Link, found: Option<FoundFile>) -> FolderSource {
        let content = link.info.id();
        let told = link.name.as_ref();
        let told = told.or(found.as_ref().map(|found| &found.name));
        FolderSource {
            name: told.map_or_else(|| content.into(), |told| choice::local_name(told, content)),
            manifest: link.info,
            times: link.folder.and_then(|folder| folder.times),
            key: link.key.clone(),
            holders: found.map(|found| found.holders).unwrap_or_default(),
            nodes: link.nodes.clone(),
            follow: None,
        }
    }

    /// A collection that a lookup found.
    pub(crate) async fn of_found(node: &Node, found: FoundFile, name: AssetName) -> FolderSource {
        // Only holders know where its times are.
        let versions = node
            .ask_for_folder(&found.name, found.holders.clone())
            .await;
        let same = versions
            .iter()
            .find(|version| version.manifest == found.info);
        FolderSource {
            name,
            manifest: found.info,
            times: same.and_then(|version| version.times),
            key: None,
            holders: found.holders,
            nodes: Vec::new(),
            follow: None,
        }
    }

    /// The newer version of a folder, which nodes share under its name by now.
    pub(crate) fn renewed(
        name: AssetName,
        key: Option<ShareKey>,
        follow: &Follow,
        found: FolderFound,
    ) -> FolderSource {
        FolderSource {
            name,
            manifest: found.manifest,
            times: found.times,
            key,
            follow: Some(follow.renewed(&found.holders)),
            holders: found.holders,
            nodes: Vec::new(),
        }
    }

    /// Means the folder that its sources share under its name, whichever version that is.
    pub(crate) fn followed(self, name: AssetName) -> FolderSource {
        FolderSource {
            follow: Some(Follow::new(name, &self.holders)),
            ..self
        }
    }

    /// Requests the folder for a directory.
    pub(crate) fn into_request(self, list_path: PathBuf) -> FolderRequest {
        FolderRequest::new(self.name, self.manifest, list_path)
            .times(self.times)
            .share_key(self.key)
            .holders(self.holders)
            .nodes(self.nodes)
    }

    /// Requests the folder as a download of a running node, beneath its directory of downloads.
    pub(crate) fn into_download(self, dir: PathBuf, mut terms: FolderTerms) -> DownloadRequest {
        let target = Target::beneath(dir, self.name.clone());
        terms.times = self.times;
        DownloadRequest::new(self.name, self.manifest, target)
            .holders(self.holders)
            .nodes(self.nodes)
            .share_key(self.key)
            .follow(self.follow)
            .folder(terms)
    }
}

/// Returns the collection of a name among what a lookup of the name found.
pub(crate) fn collection_of(
    name: &AssetName,
    found: Findings,
    command: impl Fn(&str) -> String,
) -> Result<Option<FoundFile>, Failure> {
    let mut files = found.files;
    files.retain(|file| file.is_collection && file.name == *name);
    let choice = choice::choose(&Query::Name(name.as_str().to_owned()), files);
    if let Some(candidates) = choice.ambiguous.first() {
        let text = choice::explain_ambiguity(candidates, command);
        return Err(Failure::new(Exit::NotFound, text));
    }
    Ok(choice.files.into_iter().next())
}

/// Asks the holders of some files beneath a folder for the whole folder.
pub(crate) async fn of_files(
    node: &Node,
    name: &AssetName,
    mut sample: Findings,
) -> Result<FoundFolder, Failure> {
    sample.files.retain(|file| !file.is_collection);
    let mut holders: Vec<Contact> = Vec::new();
    for contact in sample.files.iter().flat_map(|file| &file.holders) {
        if contact.complete && !holders.iter().any(|known| known.node == contact.node) {
            holders.push(contact.clone());
        }
    }
    if sample.files.is_empty() {
        return Err(Failure::new(
            Exit::NotFound,
            format!(
                "no reachable node shares a folder {:?}\n`qshare ls` lists the files that can be \
                 downloaded; --wait waits until a node shares it",
                name.as_str()
            ),
        ));
    }
    let versions = node.ask_for_folder(name, holders).await;
    let mut versions = versions.into_iter();
    let Some(version) = versions.next() else {
        let glob = glob_of_folder(name.as_str());
        return Err(Failure::new(
            Exit::NotFound,
            format!(
                "no holder of {:?} lists it as a folder\nDownload its files one by one: qshare get \
                 {}",
                name.as_str(),
                crate::suggest::quoted(glob.as_ref())
            ),
        ));
    };
    Ok(FoundFolder {
        other_versions: versions.count(),
        source: FolderSource {
            name: name.clone(),
            manifest: version.manifest,
            times: version.times,
            key: None,
            follow: Some(Follow::new(name.clone(), &version.holders)),
            holders: version.holders,
            nodes: Vec::new(),
        },
    })
}

/// Finds the folder of a name for a running node: a collection, or a directory of nodes' assets.
pub(crate) async fn find_at_node(
    node: &Node,
    name: &AssetName,
    patience: Duration,
) -> Result<FoundFolder, Failure> {
    let failed = |error: FindError| messages::find(&error, Reader::Prompt);
    let by_name = Query::Name(name.as_str().to_owned());
    let found = node.find_all(&by_name, SAMPLE, patience, LISTING_MAX).await;
    let found = found.map_err(failed)?;
    if let Some(file) = collection_of(name, found, |id| id.to_string())? {
        let source = FolderSource::of_found(node, file, name.clone()).await;
        return Ok(FoundFolder {
            source: source.followed(name.clone()),
            other_versions: 0,
        });
    }
    let beneath = Query::Name(glob_of_folder(name.as_str()));
    let sample = node.find_all(&beneath, SAMPLE, patience, LISTING_MAX);
    of_files(node, name, sample.await.map_err(failed)?).await
}
