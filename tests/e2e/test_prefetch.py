"""What a start reads is learned, and fetched before the next one asks for it."""

import json
import random
import shutil

from case import NOT_FOUND, USAGE, Case
from sandbox import Relay, kill_all, wait_until


class Prefetch(Case):
    def fresh_cache(self):
        """The same root with its indexes and lists, and nothing in the cache."""
        self.hydrant.ok("stop")
        wait_until(lambda: not self.hydrant.daemons(), what="daemons end")
        for name in ("cache", "graveyard"):
            shutil.rmtree(self.hydrant.root / name, ignore_errors=True)

    def fetched(self, directory):
        return self.hydrant.ok("stat", "--json", directory)["fetch"]

    def present(self, directory):
        return sum(device["present"] for device in self.hydrant.ok("stat", "--json", directory)["devices"])

    def all_comes_unasked(self, image, directory, reads=0):
        devices = lambda: self.hydrant.ok("stat", "--json", directory)["devices"]
        wait_until(lambda: all(device["present"] == device["size"] for device in devices()), what="all is here")
        self.assertLessEqual(sum(device["reads"] for device in devices()), reads)
        self.same_tree(self.unpack(image), directory)

    def test_the_next_start_finds_what_the_last_one_read(self):
        reference = self.push("small")
        self.hydrant.ok("index", reference)
        directory = self.hydrant.mount(reference)
        data = (directory / "data").read_bytes()[:300000]
        told = self.hydrant.ok("record", "--json", directory)
        self.assertEqual((told["runs"], told["files"]), (1, 1))
        self.assertGreaterEqual(told["bytes"], 300000)
        self.assertEqual(self.hydrant.ok("record", "--json", directory)["runs"], 1, "still the same start")

        [path] = (self.hydrant.root / "fetch/prefetch").iterdir()
        kept = json.loads(path.read_text())
        self.assertEqual({entry["path"] for entry in kept["entries"]}, {"data"})
        self.assertEqual(kept["subject"], self.hydrant.ok("stat", "--json", directory)["image"]["manifest"])

        self.fresh_cache()
        directory = self.hydrant.mount(reference)
        wait_until(lambda: self.present(directory) >= 300000, what="the list is fetched")
        [device] = self.hydrant.ok("stat", "--json", directory)["devices"]
        self.assertEqual(device["reads"], 0, "nobody has asked")
        self.assertGreater(self.fetched(directory)["prefetched"], 0)
        self.assertEqual((directory / "data").read_bytes()[:300000], data)

    def test_without_prefetch_nothing_is_fetched(self):
        reference = self.push("small")
        self.hydrant.ok("index", reference)
        directory = self.hydrant.mount(reference)
        (directory / "data").read_bytes()
        self.hydrant.ok("record", directory)
        self.fresh_cache()
        directory = self.hydrant.mount("--no-prefetch", reference)
        self.assertEqual((directory / "hello").read_text(), "hello\n")
        self.assertEqual(self.fetched(directory)["prefetched"], 0)
        # Until somebody asks for it.
        told = self.hydrant.ok("replay", "--json", directory)
        self.assertEqual(told["runs"], 1)
        wait_until(lambda: self.present(directory) >= 3 << 20, what="the list is fetched")

    def test_the_rest_follows_in_the_background(self):
        reference = self.push("many")
        self.hydrant.ok("index", reference)
        directory = self.hydrant.mount(reference, "--background")
        self.all_comes_unasked("many", directory)

    def test_a_single_file_follows_in_the_background_too(self):
        content = random.Random(5).randbytes(9 << 20)
        source = self.temporary() / "big"
        source.write_bytes(content)
        path = self.temporary() / "here"
        path.touch()
        self.hydrant.ok("mount", "--background", f"file://{source}", path)
        devices = lambda: self.hydrant.ok("stat", "--json", path)["devices"]
        wait_until(lambda: all(device["present"] >= len(content) for device in devices()), what="all is here")
        self.assertEqual(sum(device["reads"] for device in devices()), 0, "nobody has asked")
        self.assertEqual(path.read_bytes(), content)

    def test_whoever_comes_next_goes_on_in_the_background(self):
        with Relay(self.registry.port) as relay:
            self.push("many")
            reference = self.registry.name("many", relay.port)
            self.hydrant.ok("index", reference)
            directory = self.hydrant.mount(reference)
            digest = self.hydrant.ok("stat", "--json", directory)["image"]["manifest"]
            for name in ("hydrant-fetchd", "hydrantd"):
                self.fresh_cache()
                relay.hold()
                directory = self.hydrant.mount(f"{reference}@{digest}", "--background")
                kill_all(self.hydrant.daemons()[name])
                relay.release()
                wait_until(lambda: self.hydrant.run("stat", directory).returncode == 0, what="the next one")
                self.all_comes_unasked("many", directory, reads=4)  # one a device had it opened again

    def test_a_short_start_is_learned_when_it_ends(self):
        reference = self.push("small")
        self.hydrant.ok("index", reference)
        directory = self.hydrant.mount("--no-prefetch", reference)
        (directory / "data").read_bytes()
        self.hydrant.ok("umount", directory)
        lists = self.hydrant.root / "fetch/prefetch"
        self.assertFalse(lists.exists(), "nobody asked for it")
        self.fresh_cache()
        directory = self.hydrant.mount(reference)
        (directory / "data").read_bytes()
        self.hydrant.ok("umount", directory)
        [path] = lists.iterdir()
        self.assertEqual({entry["path"] for entry in json.loads(path.read_text())["entries"]}, {"data"})

    def test_files_and_directories_are_fetched_on_request(self):
        reference = self.push("many")
        self.hydrant.ok("index", reference)
        directory = self.hydrant.mount(reference)
        told = self.hydrant.ok("prefetch", "--json", directory, directory / "srv/again", "/srv/again/back")
        self.assertEqual(told["files"], len([p for p in (directory / "srv/again").rglob("*") if p.is_file()]) + 1)
        wait_until(lambda: self.fetched(directory)["prefetched"] > 0, what="something is fetched")
        wait_until(lambda: self.present(directory) > 0, what="it is here")
        before = self.hydrant.ok("stat", "--json", directory)["devices"]
        self.assertEqual((directory / "srv/again/back").read_text(), "again\n")
        self.assertEqual(self.hydrant.ok("stat", "--json", directory)["devices"], before, "it was here")

        self.hydrant.ok("prefetch", directory, directory)
        self.all_comes_unasked("many", directory)

    def test_what_cannot_be_fetched_is_told(self):
        reference = self.push("small")
        self.hydrant.ok("index", reference)
        directory = self.hydrant.mount(reference)
        self.fails(NOT_FOUND, ["/nowhere"], "prefetch", directory, "/nowhere")
        self.fails(NOT_FOUND, ["hydrant record"], "replay", directory)
        self.fails(USAGE, ["nothing of image"], "record", directory)
        self.fails(NOT_FOUND, ["not a mount"], "prefetch", self.temporary())
        list_directory = self.hydrant.root / "fetch/prefetch"
        (directory / "data").read_bytes()
        self.hydrant.ok("record", directory)
        [path] = list_directory.iterdir()
        path.write_text("{")
        self.fails(USAGE, ["prefetch list"], "replay", directory)
        self.hydrant.ok("umount", directory)
        # A list that nobody can read keeps nobody from mounting, nor from learning anew.
        directory = self.hydrant.mount(reference)
        self.assertEqual((directory / "hello").read_text(), "hello\n")
