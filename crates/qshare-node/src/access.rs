//! How this node names a content to others: by its id, or, in a private share, by its topic.

use qshare_content::{ContentId, ContentInfo, ShareKey, Topic};

/// The name of a content in requests, and what must be proven before.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Access {
    /// The content is public.
    Public(ContentId),
    /// The content belongs to a private share.
    Private {
        /// The share's key.
        key: ShareKey,
        /// The content's topic under this key.
        topic: Topic,
        /// The topic to unlock: the same one, or that of the collection of which it is a member.
        unlocked_by: Topic,
    },
}

impl Access {
    /// Returns the access to a content, in a private share if there is a key.
    pub(crate) fn new(info: &ContentInfo, key: Option<&ShareKey>) -> Access {
        match key {
            None => Access::Public(info.id()),
            Some(key) => {
                let topic = key.topic(&info.id());
                Access::Private {
                    key: key.clone(),
                    topic,
                    unlocked_by: topic,
                }
            }
        }
    }

    /// Returns the access to a member of a private collection.
    pub(crate) fn member(info: &ContentInfo, key: &ShareKey, collection: &Access) -> Access {
        Access::Private {
            key: key.clone(),
            topic: key.topic(&info.id()),
            unlocked_by: Topic(collection.wire_id().0),
        }
    }

    /// Returns the 32 bytes that stand for the content in requests.
    pub(crate) fn wire_id(&self) -> ContentId {
        match self {
            Access::Public(content) => *content,
            Access::Private { topic, .. } => ContentId(topic.0),
        }
    }
}
