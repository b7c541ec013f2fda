//! A registry with a clock that only the test moves.

#![allow(clippy::unwrap_used, reason = "a test may panic")]

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::time::{Duration, Instant};

use qshare_content::{ContentId, NodeId, Query};
use qshare_registry::{
    Announced, EntryKey, Find, GroupId, HolderChange, Output, Page, Refused, Registry,
    RegistryConfig, SessionId, Timeout, TimeoutReason, WatchId,
};

pub(crate) use crate::conformance::registered::{entry, info, part};

pub(crate) struct World {
    pub(crate) registry: Registry,
    pub(crate) now: Instant,
    pub(crate) group: GroupId,
}

impl World {
    pub(crate) fn new(config: RegistryConfig) -> World {
        let now = Instant::now();
        World {
            registry: Registry::new(config, now, 1),
            now,
            group: GroupId::OPEN,
        }
    }

    pub(crate) fn pass(&mut self, time: Duration) {
        self.now += time;
    }

    pub(crate) fn open(&mut self, node: u8) -> SessionId {
        self.open_at(node, address(node))
    }

    pub(crate) fn open_at(&mut self, node: u8, observed: SocketAddr) -> SessionId {
        self.registry
            .handle_session_opened(self.now, self.group, node_id(node), observed, &[])
            .unwrap()
    }

    pub(crate) fn close(&mut self, session: SessionId, clean: bool) {
        self.registry
            .handle_session_closed(self.now, session, clean);
    }

    pub(crate) fn announce(&mut self, session: SessionId, batch: &[Announced]) -> Vec<Refused> {
        self.registry
            .handle_announced(self.now, session, batch)
            .unwrap()
    }

    pub(crate) fn withdraw(&mut self, session: SessionId, batch: &[Announced]) {
        let keys: Vec<EntryKey> = batch
            .iter()
            .map(|entry| EntryKey {
                name: entry.name.clone(),
                content: entry.info.id(),
            })
            .collect();
        self.registry
            .handle_withdrawn(self.now, session, &keys)
            .unwrap();
    }

    pub(crate) fn query(&self, text: &str) -> Find {
        Find {
            group: self.group,
            query: text.parse().unwrap_or_else(|_| Query::Name(text.into())),
            after: None,
            limit: 100,
            holders: 16,
            asking: None,
            near: true,
        }
    }

    pub(crate) fn find(&mut self, text: &str) -> Page {
        let find = self.query(text);
        self.registry.find(self.now, &find).unwrap()
    }

    /// Names and contents that a query finds, all pages of at most `limit`.
    pub(crate) fn listing(&mut self, query: Query, limit: usize) -> Vec<(String, ContentId)> {
        let mut find = self.query("");
        find.query = query;
        find.limit = limit;
        let mut listing = Vec::new();
        loop {
            let page = self.registry.find(self.now, &find).unwrap();
            assert!(page.matches.len() <= limit);
            listing.extend(
                page.matches
                    .iter()
                    .map(|found| (found.name.to_string(), found.info.id())),
            );
            match page.more {
                Some(cursor) => {
                    assert_ne!(find.after.as_ref(), Some(&cursor), "a page must advance");
                    find.after = Some(cursor);
                }
                None => return listing,
            }
        }
    }

    pub(crate) fn names(&mut self, text: &str) -> Vec<String> {
        let page = self.find(text);
        let names = page.matches.iter().map(|found| found.name.to_string());
        names.collect()
    }

    pub(crate) fn holders(&mut self, content: ContentId) -> BTreeMap<NodeId, bool> {
        self.registry
            .holders(self.now, self.group, content, 256, None)
            .holders
            .into_iter()
            .map(|holder| (holder.node, holder.complete))
            .collect()
    }

    /// Calls `handle_timeout` until no work is left; returns how often.
    pub(crate) fn work_off(&mut self) -> usize {
        let is_left = |timeout: Timeout| timeout.reason == TimeoutReason::WorkIsLeft;
        let mut calls = 0;
        while self.registry.poll_timeout().is_some_and(is_left) {
            self.registry.handle_timeout(self.now);
            calls += 1;
        }
        calls
    }

    pub(crate) fn outputs(&mut self) -> Vec<Output> {
        std::iter::from_fn(|| self.registry.poll_output()).collect()
    }

    pub(crate) fn changes(&mut self, watch: WatchId) -> Vec<HolderChange> {
        std::iter::from_fn(|| self.registry.poll_change(self.now, watch)).collect()
    }
}

pub(crate) fn node_id(node: u8) -> NodeId {
    NodeId([node; 32])
}

pub(crate) fn address(node: u8) -> SocketAddr {
    SocketAddr::from(([10, 0, 0, node], 64500))
}
