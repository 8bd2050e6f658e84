"""A policy diagnosed end to end, from its folder and over the websocket, on the channel."""

import html
import json
import re
from pathlib import Path

import numpy as np
import pyarrow.parquet as parquet
import pytest

from compression_gap.api.demos import make_demos
from compression_gap.api.diagnosis import DiagnosisOptions, diagnose, diagnose_recordings
from compression_gap.api.options import PolicyOptions, Running
from compression_gap.artifacts import policy_episodes
from compression_gap.artifacts.changed import PolicyIdentity
from compression_gap.cli.main import main
from compression_gap.demos import DemoSet
from compression_gap.errors import UserError
from compression_gap.policies import Policy
from compression_gap.serving import PolicyServer
from compression_gap.study.diagnosis import DiagnosisSpec
from strange_server import Strange, heads_for_the_goal

HERE = Running(processes=0)
BINDING = """\
cameras: {channel: observation/image}
image_size: 16
state: {key: observation/state}
execute: 4
"""


def rows_of(store):
    """Every episode of every change, without the actor's key."""
    found = []
    for file in Path(store).glob("policy-episodes/*/episodes.parquet"):
        spec = json.loads((file.parent / "artifact.json").read_text())["spec"]
        change = json.dumps({k: v for k, v in spec.items() if k not in ("policy", "binding", "protocol")})
        execute = spec["protocol"]["execute"]
        for row in parquet.read_table(file).to_pylist():
            found.append((change, execute, *(v for k, v in row.items() if k not in ("actor", "protocol"))))
    return sorted(found)


def how(*groups, **changes):
    return DiagnosisOptions(
        spec=DiagnosisSpec(groups=groups, tokenizers=("bins",)), **{"episodes": 4, "videos": 0, **changes}
    )


@pytest.fixture(scope="module")
def made_demos(tmp_path_factory):
    """Recordings of the channel, of which three episodes are held out."""
    store = tmp_path_factory.mktemp("recorded") / "store"
    (made,) = make_demos("channel", 30, image_size=16, store=store, running=HERE)
    return Path(made.folder)


@pytest.fixture
def binding(tmp_path):
    file = tmp_path / "mine.yaml"
    file.write_text(BINDING)
    return PolicyOptions(binding=str(file), timeout=20)


def test_a_policy_of_someone_elses_is_diagnosed(tmp_path, binding):
    """It looks at the image alone: it needs that, its state, and actions to within ε; it does not need colour."""
    with Strange(lambda n, m: heads_for_the_goal(m)) as server:
        made = diagnose(
            [server.url],
            how("code", "precision", "vision", "horizon", "state", "language", suite="channel", name="six lines", episodes=12, policy=binding, videos=2),
            store=tmp_path / "store",
            running=HERE,
        )  # fmt: skip
    found = made.found
    assert (found.policy, found.served, found.own_chunks, found.horizon, found.execute) == (
        "six lines",
        True,
        True,
        6,
        4,
    )
    assert (found.undisturbed.value, found.references["expert"].value) == (1.0, 1.0)
    by_name = {c.name: c for c in found.changes}
    assert by_name["grey images"].difference.value == 0
    assert by_name["all cameras black"].rate.value == 0
    assert by_name["all cameras black"].lost == 12
    assert by_name["own state at its mean"].rate.value < 0.5
    assert by_name["images of 1 × 1"].rate.value < 0.5
    fine, coarse = (by_name[f"chunks through bins {n}"].rate.value for n in (256, 2))
    assert fine > 0.7 > coarse  # fitted to other episodes, whose range some chunks leave
    assert [c.size for c in found.changes if c.group == "horizon"] == [1, 2]
    assert found.skipped == {"language": "one task has no other task's prompt"}
    needed = {n.group: n for n in found.needed}
    assert needed["averaged"].value > 2
    assert needed["averaged"].bound == ""
    assert found.sentences[0] == "As it is, the policy succeeds in 100 % [76, 100] of 12 episodes."
    assert "Its success falls with" in found.sentences[1]
    page = html.unescape((made.folder / "diagnosis.html").read_text())
    assert found.sentences[1] in page
    assert page.count("<svg") == 2
    assert page.count("<video") == 4  # two changes: as it was, and under the change
    assert page.index("as it is: reach, success") < page.index("images of 1 × 1: reach, failure")
    assert "own</b> undisturbed chunks" in page
    assert json.loads((made.folder / "diagnosis.json").read_text())["policy"] == "six lines"


def test_a_studys_policy_is_diagnosed_alike_from_its_folder_and_served(finished, tmp_path, monkeypatch):
    """The same episodes under every change, bit by bit: one decision at a time, as a server's."""
    from compression_gap.rollouts import pools

    monkeypatch.setattr(pools, "ROLLOUT_WORKERS", 1)
    monkeypatch.setattr(pools.pool_for, "__defaults__", (1,))
    monkeypatch.setattr(
        "compression_gap.api.diagnosis.undisturbed_rows", lambda *a: None
    )  # it never succeeds
    options = how("precision", "vision", "horizon", "state", execute=16)
    with pytest.raises(UserError, match="succeeds in none of 4 episodes as it is"):
        diagnose([str(finished.policy)], options, store=tmp_path / "here", running=HERE)
    with (
        PolicyServer(Policy.load(finished.policy)) as server,
        pytest.raises(UserError, match="see whether the binding, the camera and the actions are right"),
    ):
        diagnose([server.url], options, store=tmp_path / "there", running=HERE)
    here, there = rows_of(tmp_path / "here"), rows_of(tmp_path / "there")
    assert len(here) == 84
    assert here == there
    traces = [
        sorted(np.load(f)["chunk"].tobytes() for f in (tmp_path / s).glob("policy-episodes/*/trace.npz"))
        for s in ("here", "there")
    ]
    assert traces[0] == traces[1]


def test_a_policy_that_never_succeeds_is_told_so_before_any_change(finished, tmp_path):
    options = how("precision", "vision", "horizon", "state", execute=16)
    with pytest.raises(UserError, match="succeeds in none of 4 episodes as it is"):
        diagnose([str(finished.policy)], options, store=tmp_path, running=HERE)
    assert len(rows_of(tmp_path)) == 4


def test_a_run_that_was_broken_off_goes_on_and_asks_for_no_episode_twice(tmp_path, binding, monkeypatch):
    monkeypatch.setattr("compression_gap.serving.remote.MOST_LOST", 1)
    options = how("horizon", suite="channel", name="it", episodes=6, policy=binding)
    with Strange(lambda n, m: heads_for_the_goal(m) if n < 22 else None) as server:
        with pytest.raises(UserError, match="was lost 1 times in one episode"):
            diagnose([server.url], options, store=tmp_path / "broken", running=HERE)
        kept = list((tmp_path / "broken").rglob(policy_episodes.ROWS))
        assert len(kept) == 1
        before = kept[0].read_text().splitlines()
        assert 0 < len(before) < 6
        with kept[0].open("a") as file:
            file.write('{"actor": "cut o')  # killed while it wrote
    with Strange(lambda n, m: heads_for_the_goal(m)) as server:
        whole = diagnose([server.url], options, store=tmp_path / "whole", running=HERE)
        asked = server.asked
    with Strange(lambda n, m: heads_for_the_goal(m)) as server:
        again = diagnose([server.url], options, store=tmp_path / "broken", running=HERE)
        assert server.asked == asked - 4 * len(before)  # four decisions an episode
    assert rows_of(tmp_path / "broken") == rows_of(tmp_path / "whole")
    assert again.found == whole.found


def test_the_name_and_the_greeting_are_a_served_policys_key(tmp_path, binding):
    options = how("state", suite="channel", policy=binding)
    keys = []
    for name, metadata in (("a", {}), ("a", {}), ("b", {}), ("a", {"checkpoint": 2})):
        with Strange(lambda n, m: heads_for_the_goal(m), metadata) as server:
            named = DiagnosisOptions(**{**vars(options), "name": name})
            diagnose([server.url], named, store=tmp_path / "store", running=HERE)
        keys.append({f.name for f in (tmp_path / "store" / "policy-episodes").iterdir()})
    assert keys[0] == keys[1] < keys[2] < keys[3]


def test_a_served_policy_that_says_nothing_of_its_weights_needs_a_name(binding):
    with (
        Strange(lambda n, m: heads_for_the_goal(m)) as server,
        pytest.raises(UserError, match="does not say which weights it serves: give the policy a --name"),
    ):
        diagnose([server.url], how("state", suite="channel", policy=binding), running=HERE)


def test_two_trainings_of_one_design_are_two_policies_where_they_are_served(finished):
    """Their greetings differ by the hash of the weights alone; how they are served is no part of what they are."""
    folders = [f for c in finished.summary["cells"][:4] for f in c["policies"]]
    told = {}
    for folder in folders:
        with (
            PolicyServer(Policy.load(folder)) as server,
            PolicyServer(Policy.load(folder), execute=3) as other,
        ):
            own, same = (PolicyIdentity.served("it", s.about) for s in (server, other))
            assert own == same
            told[folder] = own.digest
    assert len(set(told.values())) == len(folders) > 3


def test_a_server_that_was_given_another_policy_during_a_run_is_refused(binding, tmp_path):
    from compression_gap.api.actors import open_policy
    from compression_gap.api.diagnosis import _subject
    from compression_gap.artifacts.policy_episodes import PolicyEpisodes
    from compression_gap.store.store import Store

    with Strange(lambda n, m: heads_for_the_goal(m), {"checkpoint": 1}) as server:
        opened = open_policy([server.url], "channel", binding)
        subject = _subject(opened.actor, [server.url], how(name="it", policy=binding))
        opened.close()
        server.metadata = {"checkpoint": 2}
        episodes = PolicyEpisodes(
            protocol=opened.protocol(episodes=2),
            policy=subject.identity,
            binding=subject.binding,
            where=subject.where,
        )
        with (
            pytest.raises(UserError, match="serves another policy than the one that this run began with"),
            episodes.played(Store(tmp_path / "store")),
        ):
            pass


def test_the_verb_prints_the_sentences_the_table_and_the_page(tmp_path, binding, capsys):
    with Strange(lambda n, m: heads_for_the_goal(m)) as server:
        command = (
            f"diagnose {server.url} --suite channel --binding {binding.binding} --episodes 4 --changes state vision "
            f"--name mine --processes 0 --videos 0 --store {tmp_path / 'store'}"
        )
        assert main(command.split()) == 0
        said = capsys.readouterr().out
        assert main([*command.split(), "--json"]) == 0
        asked = server.asked
    assert "As it is, the policy succeeds in 100 %" in said
    assert re.search(r"images of 4 × 4 +4 +\d+ %", said)
    assert re.search(r"page: .*/diagnoses/mine-[0-9a-f]{8}/diagnosis.html", said)
    found = json.loads(capsys.readouterr().out)
    assert found["policy"] == "mine"
    assert asked == 2 + 4 * 4 * (1 + len(found["changes"]))  # the second time, the first question alone


@pytest.mark.parametrize(
    ("more", "sentence"),
    [
        ("--changes sight", "unknown group of changes 'sight'; known: code, horizon, language, precision, state, vision"),
        ("--episodes 2 --changes code", "needs at least 3 episodes: raise --episodes, or name --demos"),
        ("--episodes 0", "--episodes 0 is too small; give 1 or more"),
        ("--demos nowhere", "there is no folder nowhere: name folders STORE/demos/KEY"),
        ("--tokenizers fats", "unknown tokenizer 'fats' (did you mean 'fast'?)"),
    ],
)  # fmt: skip
def test_a_users_mistake_is_one_sentence(more, sentence, tmp_path, binding, capsys):
    with Strange(lambda n, m: heads_for_the_goal(m)) as server:
        command = f"diagnose {server.url} --suite channel --binding {binding.binding} --processes 0 --name it --store {tmp_path / 's'}"
        assert main([*command.split(), *more.split()]) == 2
    error = capsys.readouterr().err
    assert sentence in error
    assert error.count("\n") == 1


def test_a_server_that_names_no_simulator_needs_a_suite(binding, capsys):
    with Strange(lambda n, m: heads_for_the_goal(m)) as server:
        assert main(["diagnose", server.url, "--binding", binding.binding]) == 2
        assert main(["diagnose", server.url, "--suite", "channel"]) == 2
    said = capsys.readouterr().err
    assert "does not say which simulator it is for: name one with --suite" in said
    assert (
        "does not say how its policy is spoken to; name a --binding: openpi-libero, vla-eval-libero" in said
    )


def test_without_a_simulator_errors_on_recordings_are_measured(made_demos, binding):
    """Errors are those of a loop written here: chunks of held-out decisions, in standard deviations."""
    demos = DemoSet.load(made_demos)
    train = np.concatenate([demos.actions[e.start : e.start + e.length] for e in demos.split("train")])
    with Strange(lambda n, m: heads_for_the_goal(m)) as server:
        made = diagnose_recordings(
            [server.url],
            [made_demos],
            how("precision", "vision", "horizon", "state", "language", name="it", policy=binding),
            points=10_000,
            running=HERE,
        )
    found, expected = made.found, []
    for e in demos.split("test"):
        errors = []
        for t in range(e.length):
            seen = {
                "observation/image": demos.images["channel"][e.start + t],
                "observation/state": demos.proprio[e.start + t],
            }
            chunk = heads_for_the_goal(seen)["actions"]
            recorded = demos.actions[e.start + t : e.start + min(t + 6, e.length)]
            errors += [((chunk[h] - recorded[h]) / train.std(0)) ** 2 for h in range(len(recorded))]
        expected.append(np.mean(errors))
    assert found.episodes == len(expected)
    assert found.undisturbed == pytest.approx(np.mean(expected), rel=1e-4)
    by_name = {c.name: c for c in found.changes}
    assert by_name["grey images"].value == 0
    assert by_name["all cameras black"].error > found.undisturbed
    assert not any("noise" in name for name in by_name)  # it would measure itself
    assert found.skipped["horizon"] == "nothing is executed on recordings"
    assert "Nothing was executed" in found.sentences[-1]
    page = html.unescape((made.folder / "diagnosis.html").read_text())
    assert found.sentences[0] in page
    assert page.count("<svg") == 1


def test_the_verb_takes_recordings(made_demos, binding, capsys):
    with Strange(lambda n, m: heads_for_the_goal(m)) as server:
        command = f"diagnose {server.url} --binding {binding.binding} --recordings {made_demos} --changes state --processes 0 --name it"
        assert main(command.split()) == 0
        said = capsys.readouterr().out
        assert main([*command.split(), "--json"]) == 0
    assert "own state at its mean" in said
    assert "-recordings/diagnosis.html" in said
    assert json.loads(capsys.readouterr().out)["points"] > 10


def test_recordings_that_do_not_show_what_the_binding_sends_are_refused(made_demos, tmp_path, capsys):
    (tmp_path / "other.yaml").write_text(BINDING.replace("channel:", "front:"))
    with Strange(lambda n, m: heads_for_the_goal(m)) as server:
        command = [
            "diagnose",
            server.url,
            "--binding",
            str(tmp_path / "other.yaml"),
            "--recordings",
            str(made_demos),
        ]
        assert main(command) == 2
    assert (
        "the binding sees front, and the recordings have channel: import them with --cameras"
        in capsys.readouterr().err
    )


def test_a_binding_with_a_mistake_is_named_with_its_line(tmp_path, capsys):
    file = tmp_path / "mine.yaml"
    file.write_text(BINDING.replace("image_size", "image_sise"))
    with Strange(lambda n, m: heads_for_the_goal(m)) as server:
        assert main(["diagnose", server.url, "--suite", "channel", "--binding", str(file)]) == 2
    assert "mine.yaml line 2: unknown key 'image_sise'; did you mean 'image_size'?" in capsys.readouterr().err
