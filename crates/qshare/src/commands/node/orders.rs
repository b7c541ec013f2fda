//! Handling of lines that were entered at the prompt.

use std::collections::BTreeSet;
use std::path::PathBuf;
use std::time::Duration;

use qshare_node::content::{AssetName, ContentId, FileMetadata, Query};
use qshare_node::{
    DiskError, Download, DownloadRequest, FileAttributes, FolderTerms, Follow, FoundFile, Node,
    Redeemed, RemoveError, RosterState, Target, discard_unfinished, unfinished,
};
use tokio::sync::mpsc::UnboundedSender;
use tokio_util::sync::CancellationToken;

use super::status::{self, StatusJson};
use crate::argument::{Wanted, parse_listed, printed_name};
use crate::choice;
use crate::commands::ls::{FILES_MAX, LISTING_MAX, print_table};
use crate::console::Console;
use crate::exit::Failure;
use crate::folder_source::{self, FolderSource};
use crate::messages::{self, Reader};
use crate::output;
use crate::prompt::{self, Names, Order};
use crate::redeem;

/// Deadline for the first answer of a tracker; a person at the prompt waits for it.
const PATIENCE: Duration = Duration::from_secs(5);
/// Deadline of a lookup for completion.
const COMPLETION_PATIENCE: Duration = Duration::from_millis(300);
/// Maximum number of completions; a longer list does not help.
const COMPLETIONS_MAX: usize = 200;
/// A script's download fails after this time without a source. A user's download waits without
/// limit: `status` shows it, and it resumes at the next start.
const SCRIPT_SOURCE_PATIENCE: Duration = Duration::from_secs(10);

/// Handles the lines of the prompt.
pub(super) struct PromptHandler {
    pub(super) node: Node,
    pub(super) console: Console,
    pub(super) names: Names,
    pub(super) downloads_dir: PathBuf,
    /// Receives every download that begins.
    pub(super) begun: UnboundedSender<Download>,
    pub(super) quit: CancellationToken,
    /// Prints results as JSON where they have a JSON format.
    pub(super) json: bool,
}

impl PromptHandler {
    /// Executes a line. In a script, this waits for its downloads; a person's downloads continue
    /// in the background.
    pub(super) async fn carry_out(&self, line: &str, in_script: bool) {
        let done = match Order::parse(line) {
            Order::Nothing => Ok(()),
            Order::Quit => {
                self.quit.cancel();
                Ok(())
            }
            Order::Help => {
                self.console.line(prompt::HELP);
                Ok(())
            }
            Order::Status => {
                let status = self.node.status();
                match self.json {
                    true => self.console.json(&StatusJson::from(&status)),
                    false => {
                        // As one text, because the prompt is redrawn after each.
                        let mut lines = status::describe(&status);
                        let around = self.node.lan_nodes().len();
                        if around > 0 {
                            let around = output::count(around as u64, "other node");
                            lines.push(format!("{around} on the local network"));
                        }
                        self.console.line(&lines.join("\n"));
                        Ok(())
                    }
                }
            }
            Order::Discard(text) => self.discard(&text).await,
            Order::Ls(glob) => self.list(glob.as_deref()).await,
            Order::Get(text) => self.get(&text, in_script).await,
        };
        if let Err(failure) = done {
            self.console.error(&failure.message);
        }
    }

    /// Returns shared names that start with a text.
    pub(super) async fn complete(&self, beginning: &str) -> Vec<String> {
        let Ok(query) = prompt::glob_of_beginning(beginning).parse() else {
            return Vec::new();
        };
        match self
            .node
            .find(&query, COMPLETIONS_MAX, COMPLETION_PATIENCE)
            .await
        {
            Ok(found) => found
                .files
                .into_iter()
                .map(|file| file.name.to_string())
                .collect(),
            Err(_) => Vec::new(),
        }
    }

    async fn list(&self, glob: Option<&str>) -> Result<(), Failure> {
        let text = glob.unwrap_or("**");
        let wanted =
            parse_listed(text).map_err(|error| messages::argument(text, &error, Reader::Prompt))?;
        let Some(query) = wanted.query() else {
            return Ok(());
        };
        let found = self.find(&query).await?;
        if found.is_empty() {
            self.console.line("no files are shared yet");
        }
        print_table(&found, &self.console)
    }

    async fn get(&self, text: &str, in_script: bool) -> Result<(), Failure> {
        let (mut nodes, mut share_key) = (Vec::new(), None);
        // A name alone may be anybody's, so it makes no file executable.
        let mut may_execute = false;
        let mut digest = None;
        let wanted = Wanted::parse(text)
            .map_err(|error| messages::argument(text, &error, Reader::Prompt))?;
        let mut redeemed = None;
        let (mut folder, mut by) = (None, None);
        let wanted = match wanted {
            Wanted::Code(code) => {
                let link = redeem::at_prompt(&self.node, &code).await?;
                redeemed = Some(link.clone());
                Wanted::Link(Box::new(link.link))
            }
            wanted => wanted,
        };
        let files = match wanted {
            // A code has become a link.
            Wanted::Code(_) => Vec::new(),
            Wanted::Name(name) => {
                let query = Query::Name(name.as_str().to_owned());
                let mut found = self.find(&query).await?;
                found.retain(|file| file.name == name);
                let files = self.choose(&query, found);
                by = Some(query);
                files
            }
            Wanted::Query(query) => {
                may_execute = matches!(query, Query::OfNode(..));
                if let Query::Sha256(wanted) = &query {
                    digest = Some(*wanted);
                }
                let found = self.find(&query).await?;
                let files = self.choose(&query, found);
                by = Some(query);
                files
            }
            Wanted::Folder(name) => {
                let found = folder_source::find_at_node(&self.node, &name, PATIENCE).await?;
                if found.other_versions > 0 {
                    let versions = output::count(found.other_versions as u64 + 1, "version");
                    self.console.note(&format!(
                        "{name}/: {versions} of the folder differ; the one with the most holders \
                         is downloaded"
                    ));
                }
                folder = Some(found.source);
                Vec::new()
            }
            Wanted::Link(link) if link.folder.is_some() => {
                folder = Some(FolderSource::of_link(&link, None));
                Vec::new()
            }
            // Nobody is asked about a private content by its id.
            Wanted::Link(link) if !link.nodes.is_empty() || link.key.is_some() => {
                may_execute = true;
                (nodes, share_key) = (link.nodes, link.key);
                vec![FoundFile {
                    content: link.info.id(),
                    name: link.name.unwrap_or_else(|| link.info.id().into()),
                    info: link.info,
                    is_collection: false,
                    complete: 0,
                    partial: 0,
                    holders: Vec::new(),
                    metadata: FileMetadata {
                        modified_ns: link.modified_ns,
                        executable: link.executable,
                        ..FileMetadata::default()
                    },
                }]
            }
            Wanted::Link(link) => {
                may_execute = true;
                let known = self
                    .find(&Query::Id(link.info.id()))
                    .await?
                    .into_iter()
                    .next();
                let content = link.info.id();
                let named = known.map(|file| FoundFile {
                    name: match &link.name {
                        Some(name) => name.clone(),
                        None => choice::local_name(&file.name, content),
                    },
                    // The link identifies the content; other nodes contribute only holders.
                    content,
                    info: link.info,
                    metadata: FileMetadata {
                        modified_ns: link.modified_ns.or(file.metadata.modified_ns),
                        executable: link.executable,
                        ..FileMetadata::default()
                    },
                    ..file
                });
                named.into_iter().collect()
            }
        };
        let mut begun = Vec::new();
        if let Some(folder) = folder {
            let terms = FolderTerms::new(None);
            let request = folder.into_download(self.downloads_dir.clone(), terms);
            begun.extend(self.begin_request(request, in_script));
        }
        for mut file in files {
            let follow = by.as_ref().and_then(|query| Follow::of_query(query, &file));
            file.metadata.executable &= may_execute;
            // Only a digest that the user wrote is required; others are claims.
            file.metadata.sha256 = digest;
            let request = self.request(file).nodes(nodes.clone());
            let request = request.share_key(share_key.clone()).follow(follow);
            begun.extend(self.begin_request(request, in_script));
        }
        if let Some(redeemed) = redeemed {
            tokio::spawn(report_when_complete(
                self.node.clone(),
                redeemed,
                begun.clone(),
            ));
        }
        if in_script {
            for download in begun {
                // The download watcher prints the result.
                let _ = download.finished().await;
            }
        }
        Ok(())
    }

    /// Returns the files that a query means, and prints ambiguous and skipped names.
    fn choose(&self, query: &Query, mut found: Vec<FoundFile>) -> Vec<FoundFile> {
        // A folder is named with a slash at the end.
        let folder = found.extract_if(.., |file| file.is_collection).last();
        if let Some(folder) = folder.filter(|_| found.is_empty()) {
            self.console.error(&format!(
                "{query} is a folder\nGet it with a slash: get {}/",
                printed_name(&folder.name)
            ));
        }
        let choice = choice::choose(query, found);
        for candidates in &choice.ambiguous {
            let explained = choice::explain_ambiguity(candidates, |id| format!("get {id}"));
            self.console.error(&explained);
        }
        for file in &choice.passed_over {
            self.console.note(&choice::explain_passed_over(file));
        }
        choice.files
    }

    /// Gives up the unfinished downloads that `text` names, and deletes their data.
    async fn discard(&self, text: &str) -> Result<(), Failure> {
        let wanted = Wanted::parse(text)
            .map_err(|error| messages::argument(text, &error, Reader::Prompt))?;
        let mut stopped = BTreeSet::new();
        if let Some(roster) = self.node.roster() {
            let mut ids = Vec::new();
            for id in roster.ids(|state| state != RosterState::Complete) {
                let row = roster.get(&id);
                if let Some(row) = row.filter(|row| is_meant(&wanted, &row.name, &row.info.id())) {
                    stopped.insert(row.name);
                    ids.push(id);
                }
            }
            match roster.remove(&ids, true).await {
                // One that has completed or was removed meanwhile.
                Ok(_) | Err(RemoveError::NoSuchDownload(_)) => {}
                Err(RemoveError::Disk(error)) => {
                    return Err(messages::disk(&error, Reader::Prompt));
                }
            }
        }
        let dir = self.downloads_dir.clone();
        let discarded = tokio::task::spawn_blocking(move || {
            let found = unfinished(&dir).into_iter();
            let found = found.filter(|one| is_meant(&wanted, &one.name, &one.info.id()));
            found
                .map(|one| discard_unfinished(&one.target, one.info).map(|_| one.name))
                .collect::<Result<BTreeSet<_>, DiskError>>()
        });
        let discarded = discarded
            .await
            .map_err(Failure::internal)?
            .map_err(|error| messages::disk(&error, Reader::Prompt))?;
        stopped.extend(discarded);
        if stopped.is_empty() {
            return Err(messages::nothing_to_discard(text));
        }
        for name in stopped {
            self.console
                .line(&format!("discarded {}", printed_name(&name)));
        }
        Ok(())
    }

    /// Requests a file for the directory of downloads.
    fn request(&self, file: FoundFile) -> DownloadRequest {
        let target = Target::beneath(&self.downloads_dir, file.name.clone());
        let digest = file.metadata.sha256;
        let attributes = FileAttributes {
            modified_ns: file.metadata.modified_ns,
            executable: file.metadata.executable,
        };
        DownloadRequest::of_file(file, target)
            .attributes(attributes)
            .sha256(digest)
    }

    /// Starts a download, unless it is running.
    fn begin_request(&self, request: DownloadRequest, in_script: bool) -> Option<Download> {
        let (name, content) = (request.name().clone(), request.info().id());
        let same = |download: &Download| *download.name() == name && download.content() == content;
        if self
            .node
            .downloads()
            .iter()
            .any(|download| same(download) && super::is_under_way(download))
        {
            self.console
                .line(&format!("already downloading {}", printed_name(&name)));
            return None;
        }
        let request = request.give_up_after(in_script.then_some(SCRIPT_SOURCE_PATIENCE));
        let download = self.node.download(request);
        let _ = self.begun.send(download.clone());
        Some(download)
    }

    /// Looks a query up, and prints why nothing was found.
    async fn find(&self, query: &Query) -> Result<Vec<FoundFile>, Failure> {
        let found = tokio::select! {
            found = self.node.find_all(query, FILES_MAX, PATIENCE, LISTING_MAX) => found,
            () = self.quit.cancelled() => return Ok(Vec::new()),
        };
        let found = found.map_err(|error| messages::find(&error, Reader::Prompt))?;
        self.names
            .learn(found.files.iter().map(|file| file.name.as_str()));
        self.names
            .learn(found.near.iter().map(|name| name.as_str()));
        let is_everything = matches!(query, Query::Name(text) if text == "**");
        if found.files.is_empty() && !is_everything {
            let text = messages::not_found(&query.to_string(), &found.near);
            self.console.error(&format!(
                "{text}\n`ls` lists the files that can be downloaded"
            ));
        }
        if found.truncated {
            self.console
                .error(&messages::prompt_listing_truncated(found.files.len()));
        }
        Ok(found.files)
    }
}

/// Returns whether an argument of `discard` means a download: by its exact name, its content ID or
/// the start of one.
fn is_meant(wanted: &Wanted, name: &AssetName, content: &ContentId) -> bool {
    match wanted {
        Wanted::Name(wanted) => wanted == name,
        Wanted::Query(Query::Name(text)) => text == name.as_str(),
        Wanted::Query(Query::OfNode(_, wanted)) => wanted == name,
        Wanted::Query(Query::Id(id)) => id == content,
        Wanted::Query(Query::IdPrefix(prefix)) => prefix.matches(content),
        // An unfinished download is not known by its digest.
        Wanted::Query(Query::Sha256(_)) => false,
        Wanted::Link(link) => link.info.id() == *content,
        Wanted::Code(_) => false,
        Wanted::Folder(folder) => folder == name,
    }
}

/// Tells the sharer of a code once all downloads have succeeded.
async fn report_when_complete(node: Node, redeemed: Redeemed, downloads: Vec<Download>) {
    for download in downloads {
        if download.finished().await.is_err() {
            return;
        }
    }
    redeem::report_complete(&node, &[redeemed]).await;
}
