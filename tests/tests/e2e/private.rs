//! Private shares with the real program: found and fetched by those who have the link, and by
//! nobody else.
#![expect(clippy::unwrap_used, reason = "a test may panic")]

use qshare_content::{ContentId, Link, Topic};
use qshare_net::{Endpoint, Identity, ShareBinding, ShareRole, accept, framed};
use qshare_tests::client::{Client, runtime, soon};
use qshare_tests::files::{self, assert_same, noise};
use qshare_tests::process::{Process, run};
use qshare_tests::tracker_client::{endpoint, greeting};
use qshare_tests::world::World;
use qshare_wire::hello::Role;
use qshare_wire::limits::SMALL_BODY_MAX_BYTES;
use qshare_wire::peer::{ChunkRequest, HashRequest, Interest, Ping};
use qshare_wire::private::{Unlock, Unlocked};
use qshare_wire::{Frame, Message, Refusal, Refused};

const MIB: usize = 1 << 20;
const NAME: &str = "geheim.bin";

/// Starts `share --json` of a file in the directory `sharer`, and returns its link.
fn share(world: &World, bytes: &[u8], more: &[&str]) -> (Process, Link) {
    files::put(&world.path("sharer").join(NAME), bytes);
    let mut command = world.command("sharer", ["share", NAME, "--json", "-vvv", "--no-lan"]);
    command.args(["--listen", "127.0.0.1:0"]).args(more);
    let mut process = Process::start(command);
    process.end_input();
    let ready = process.ready();
    assert_eq!(ready["name"], NAME);
    assert_eq!(ready["bytes"], bytes.len());
    assert_eq!(ready["files"], 1);
    let link: Link = ready["link"].as_str().unwrap().parse().unwrap();
    assert_eq!(ready["id"], link.info.id().to_string());
    (process, link)
}

#[test]
fn a_private_share_is_fetched_by_link_served_on_and_found_by_nobody() {
    let world = World::new();
    let tracker = world.tracker_with("tracker", "127.0.0.1:0", &["-vvv"]);
    let address = tracker.address.to_string();
    world.put("member", "public.txt", b"public");
    let member = world.node("member", tracker.address);
    member.process.says("sharing 1 file");
    let bytes = noise(3 * MIB, 7);
    let (mut sharer, link) = share(&world, &bytes, &["--tracker", &address]);
    let (id, text) = (link.info.id().to_string(), link.to_string());
    let key = link.key.as_ref().unwrap().to_text();
    assert!(text.starts_with("qshare:2,"), "{text}");

    let client = tracker.client();
    client.until_complete("public.txt", 1);
    let prefix = format!("id:{}", &id[..8]);
    for query in ["**", NAME, "geheim*", "*.bin", &id, &prefix] {
        let found = client.find(query);
        assert!(
            found
                .iter()
                .all(|found| found.name.as_str() == "public.txt"),
            "{query}: {found:?}"
        );
    }
    let listed = world.run("to", &["ls", "--tracker", &address]).well();
    assert!(!listed.out.contains("geheim"), "{listed:?}");
    let told = world.get("to", tracker.address, &["geheim"]).with(3);
    assert!(!told.err.contains(NAME), "{told:?}");
    // A link without its key asks for the public content of this id.
    let public = Link {
        key: None,
        ..link.clone()
    };
    world
        .get("to", tracker.address, &[&public.to_string()])
        .with(5);

    let mut command = world.command("one", ["get", "--seed", "-vvv", "--no-lan", &text]);
    command.args(["--listen", "127.0.0.1:0"]);
    let mut first = Process::start(command);
    first.end_input();
    first.says("serving the downloaded files");
    assert_same(&world.path("one").join(NAME), &bytes);
    let received = |line: &str| line.contains(r#""received":1"#).then_some(());
    sharer.out_line(received);
    sharer.kill();
    world.run("two", &["get", "--no-lan", &text]).well();
    assert_same(&world.path("two").join(NAME), &bytes);

    let tracked = Process::end_of(tracker.process);
    assert!(!tracked.contains(&key), "{tracked}");
    let logged = Process::end_of(first);
    assert!(
        !logged.contains(&key) && !logged.contains(&id[..10]),
        "{logged}"
    );
}

/// Sends a request on a stream of its own, and returns the bytes of the answer.
async fn answer<M: Message>(client: &Client, request: &M) -> Vec<u8> {
    let (mut send, mut recv) = client.session.connection.open_bi().await.unwrap();
    framed::write(&mut send, request).await.unwrap();
    soon("an answer", recv.read_to_end(1 << 16)).await.unwrap()
}

async fn answers_to(client: &Client, named: ContentId) -> Vec<Vec<u8>> {
    let extensions = Vec::new;
    let interest = Interest {
        content: named,
        extensions: extensions(),
    };
    let hashes = HashRequest {
        content: named,
        page: 0,
        extensions: extensions(),
    };
    let chunk = ChunkRequest {
        content: named,
        height: 0,
        index: 0,
        path_levels: 0,
        extensions: extensions(),
    };
    vec![
        answer(client, &interest).await,
        answer(client, &hashes).await,
        answer(client, &chunk).await,
    ]
}

#[test]
fn without_proof_a_private_content_is_refused_as_an_unknown_one_is() {
    let world = World::new();
    let bytes = noise(3 * MIB, 8);
    let (_sharer, link) = share(&world, &bytes, &[]);
    let holder = link.nodes[0].clone();
    let (key, topic) = (link.key.clone().unwrap(), link.topic().unwrap());
    let at = holder.host_port().parse().unwrap();
    runtime().block_on(async {
        let client = Client::connect(at, holder.id, false).await;
        let unknown = answers_to(&client, ContentId([9; 32])).await;
        let refused = Frame::encode(&Refused::new(Refusal::NotHere)).unwrap();
        assert!(unknown.iter().all(|answer| *answer == refused));
        assert_eq!(answers_to(&client, link.info.id()).await, unknown);
        assert_eq!(answers_to(&client, ContentId(topic.0)).await, unknown);

        let us = client.id();
        let binding = ShareBinding::of(&client.session.connection, us, holder.id).unwrap();
        let unlock = |topic: Topic, proof| Unlock {
            topic,
            proof,
            extensions: Vec::new(),
        };
        let proof = binding.prove(ShareRole::Requester, &key, &topic);
        let mut wrong = proof;
        wrong[31] ^= 1;
        // The holder's own proof of another connection would be of this role.
        let turned = binding.prove(ShareRole::Holder, &key, &topic);
        for request in [
            unlock(topic, wrong),
            unlock(topic, turned),
            unlock(Topic([9; 32]), proof),
        ] {
            assert_eq!(answer(&client, &request).await, refused);
            assert_eq!(answers_to(&client, ContentId(topic.0)).await, unknown);
        }
        let valid = unlock(topic, proof);
        let asked = framed::ask::<Unlock, Unlocked>(&client.session.connection, &valid);
        let (unlocked, ..) = soon("the proof", asked).await.unwrap();
        assert!(binding.verify(ShareRole::Holder, &key, &topic, &unlocked.proof));
        // On this connection the topic is served now; the id is still unknown.
        let hashes = HashRequest {
            content: ContentId(topic.0),
            page: 0,
            extensions: Vec::new(),
        };
        assert!(answer(&client, &hashes).await.len() > 500);
        assert_eq!(answers_to(&client, link.info.id()).await, unknown);
        // Another connection has to prove it anew.
        let other = Client::connect(at, holder.id, false).await;
        assert_eq!(answers_to(&other, ContentId(topic.0)).await, unknown);
        assert_eq!(answer(&other, &valid).await, refused);
    });
}

#[test]
fn a_code_leads_to_the_newest_version_and_once_ends_with_its_receiver() {
    let world = World::new();
    let tracker = world.tracker();
    let address = tracker.address.to_string();
    let trackers = ["--tracker", &address, "--once=2"];
    let (sharer, _) = share(&world, b"first version", &trackers);
    let ready = sharer.ready();
    let code = ready["code"].as_str().unwrap().to_owned();
    let get = |place: &str| world.run(place, &["get", "--no-lan", "--tracker", &address, &code]);
    get("one").well();
    assert_same(&world.path("one").join(NAME), b"first version");
    files::put(&world.path("sharer").join(NAME), b"second");
    sharer.out_line(|line| line.contains(r#""event":"version""#).then_some(()));
    get("two").well();
    assert_same(&world.path("two").join(NAME), b"second");
    let ended = sharer.end().well();
    assert!(
        ended.err.contains("every receiver has everything"),
        "{ended:?}"
    );
    let events = [r#""event":"redeemed""#, r#""event":"completed""#];
    for event in events {
        assert_eq!(ended.out.matches(event).count(), 2, "{ended:?}");
    }
    assert!(!ended.err.contains(&code), "{ended:?}");
}

#[test]
fn a_wrong_key_fetches_nothing_and_a_changed_file_says_so() {
    let world = World::new();
    let bytes = noise(MIB, 9);
    let (sharer, link) = share(&world, &bytes, &[]);
    let guess = Link {
        key: Some(qshare_content::ShareKey::from_bytes([7; 16])),
        ..link.clone()
    };
    let refused = world
        .run("to", &["get", "--no-lan", &guess.to_string()])
        .with(5);
    assert!(!refused.err.contains(&link.info.id().to_string()));
    files::put(&world.path("sharer").join(NAME), b"another content");
    let renewed = sharer.out_line(|line| {
        let event: serde_json::Value = serde_json::from_str(line).ok()?;
        let link = event.get("link").filter(|_| event["event"] == "version")?;
        link.as_str().map(str::to_owned)
    });
    let text = link.to_string();
    let stale = world.run("to", &["get", "--no-lan", &text]).with(3);
    stale.saying("the file has changed at its source");
    world.run("to", &["get", "--no-lan", &renewed]).well();
    assert_same(&world.path("to").join(NAME), b"another content");
}

/// Accepts a node, and returns the bodies of the requests that it makes of a holder that answers
/// every `Unlock` with a proof of its own making.
async fn requests_to_an_impostor(endpoint: &Endpoint) -> Vec<Frame> {
    let incoming = endpoint.accept().await.unwrap();
    let session = accept(endpoint.id(), &greeting(Role::Node, None), incoming).await;
    let session = session.unwrap();
    let mut requests = Vec::new();
    while let Ok((mut send, mut recv)) = session.connection.accept_bi().await {
        let Ok(request) = framed::read_frame(&mut recv, SMALL_BODY_MAX_BYTES).await else {
            continue;
        };
        if request.kind == Unlock::TYPE {
            let unlocked = Unlocked {
                proof: [3; 32],
                extensions: Vec::new(),
            };
            framed::write(&mut send, &unlocked).await.unwrap();
            let _ = send.finish();
        }
        requests.push(request);
    }
    requests
}

#[test]
fn a_holder_that_proves_nothing_learns_nothing() {
    let world = World::new();
    for length in [MIB, 1000] {
        let bytes = noise(length, 12);
        let (_sharer, link) = share(&world, &bytes, &["--no-code"]);
        let requests = runtime().block_on(async {
            let impostor = endpoint(&Identity::ephemeral().unwrap());
            let at = impostor.local_addr().unwrap();
            let nodes = vec![format!("{}@{at}", impostor.id()).parse().unwrap()];
            let link = Link {
                nodes,
                ..link.clone()
            };
            let mut command = world.command("to", ["get", "--no-lan", &link.to_string()]);
            command.args(["--listen", "127.0.0.1:0"]);
            let getting = std::thread::spawn(move || run(command));
            let requests = soon("requests", requests_to_an_impostor(&impostor)).await;
            let ended = getting.join().unwrap().with(5);
            assert!(
                ended.err.contains("it does not know the share's key"),
                "{ended:?}"
            );
            requests
        });
        assert!(!requests.is_empty());
        let (id, root) = (link.info.id().0, link.info.root.0);
        for request in requests {
            assert!(
                [Unlock::TYPE, Ping::TYPE].contains(&request.kind),
                "{request:?}"
            );
            let has = |secret: &[u8]| request.body.windows(secret.len()).any(|at| at == secret);
            assert!(!has(&id) && !has(&root) && !has(NAME.as_bytes()));
        }
    }
}
