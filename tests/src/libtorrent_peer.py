"""One libtorrent peer.

    peer.py seed TORRENT FILE      makes the torrent, says `ready`, and serves
    peer.py get TORRENT DIR PEER…  says `ready`, waits for a line, fetches, says how many bytes were
                                   wasted, and goes on serving
"""

import os
import sys

import libtorrent as lt

PORT = 6881


def session():
    settings = {
        "listen_interfaces": f"0.0.0.0:{PORT}",
        # Every peer is told all addresses.
        "enable_dht": False,
        "enable_lsd": False,
        "enable_upnp": False,
        "enable_natpmp": False,
        # uTP is far slower here than TCP.
        "enable_outgoing_utp": False,
        "enable_incoming_utp": False,
        "alert_mask": lt.alert.category_t.status_notification
        | lt.alert.category_t.error_notification,
    }
    return lt.session(settings)


def add(ses, torrent, directory, seeding):
    params = lt.add_torrent_params()
    params.ti = lt.torrent_info(torrent)
    params.save_path = directory
    params.flags &= ~lt.torrent_flags.auto_managed
    params.flags &= ~lt.torrent_flags.paused
    if seeding:
        params.flags |= lt.torrent_flags.seed_mode
    return ses.add_torrent(params)


def make(path, torrent):
    storage = lt.file_storage()
    lt.add_files(storage, path)
    created = lt.create_torrent(storage, 0, lt.create_torrent.v2_only)
    lt.set_piece_hashes(created, os.path.dirname(path))
    with open(torrent, "wb") as file:
        file.write(lt.bencode(created.generate()))


def say(text):
    print(text, flush=True)


def wait_for(ses, kind):
    while True:
        ses.wait_for_alert(60_000)
        for alert in ses.pop_alerts():
            if isinstance(alert, kind):
                return
            print(alert, file=sys.stderr, flush=True)


def main():
    role, torrent, path, *peers = sys.argv[1:]
    ses = session()
    if role == "seed":
        make(path, torrent)
        add(ses, torrent, os.path.dirname(path), True)
        say("ready")
    else:
        os.makedirs(path, exist_ok=True)
        say("ready")
        sys.stdin.readline()
        handle = add(ses, torrent, path, False)
        for peer in peers:
            handle.connect_peer((peer, PORT))
        wait_for(ses, lt.torrent_finished_alert)
        status = handle.status()
        say(status.total_redundant_bytes + status.total_failed_bytes)
    # Serves until it is killed, or until the process that started it is gone.
    sys.stdin.read()


main()
