"""A policy by what the user names: a folder, or the address of a server; and the simulator that it acts in."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..errors import UserError, unknown_name
from ..sims import EVALUATION_STATES, EvaluationProtocol, SimInfo, SimSpec, default_rendering, sim_info
from ..sims import suite as suite_named
from ..study.offline import RECORDINGS
from ..study.setting import EXECUTE, protocol_of
from ..study.yaml import parse_model
from .options import PolicyOptions

if TYPE_CHECKING:
    from ..policies import Policy
    from ..serving.binding import Binding
    from ..serving.remote import RemoteActor


@dataclass(frozen=True)
class OpenPolicy:
    """An actor in its simulator; ``execute``: actions per decision that it is made for."""

    name: str
    actor: Policy | RemoteActor
    sim: SimSpec
    execute: int

    def protocol(
        self, *, episodes: int, execute: int | None = None, first_initial_state: int | None = None
    ) -> EvaluationProtocol:
        """Its evaluation; by default from the evaluation's initial states."""
        return protocol_of(
            self.sim,
            episodes,
            execute=min(self.execute if execute is None else execute, self.actor.horizon),
            n_obs_steps=self.actor.n_obs_steps,
            first_initial_state=EVALUATION_STATES if first_initial_state is None else first_initial_state,
        )

    def close(self) -> None:
        """Hang up, where it is a server's."""
        if close := getattr(self.actor, "close", None):
            close()


def open_policy(named: Sequence[str], suite: str | None, options: PolicyOptions) -> OpenPolicy:
    """Open a policy's folder, or connect to it: ``named`` is one folder, or addresses of servers of one policy.

    ``suite``: by default the policy's own simulator and tasks.
    """
    from ..serving.remote import is_address

    if not named:
        raise UserError("no policy is named; give its folder, or ws://HOST:PORT where it is served")
    if all(map(is_address, named)):
        return _served(named, suite, options)
    if len(named) > 1:
        raise UserError(
            f"{len(named)} policies are named; give one folder, or addresses ws://HOST:PORT of servers of one policy"
        )
    if options.binding is not None:
        raise UserError(f"{named[0]} is a folder, and --binding is for a served policy; leave it out")
    return _in_folder(Path(named[0]), suite)


def _in_folder(folder: Path, suite: str | None) -> OpenPolicy:
    from ..policies import Policy

    policy = Policy.load(folder)
    if suite is None and policy.spec.sim == RECORDINGS:
        raise UserError(
            f"{folder} was trained on recordings, which no simulator repeats: name one with --suite, or serve it to "
            "the robot with cgap serve"
        )
    sim, tasks = suite_named(suite) if suite else (policy.spec.sim, policy.spec.tasks)
    spec = SimSpec(
        sim=sim,
        tasks=tasks,
        cameras=policy.spec.cameras,
        image_size=policy.spec.image_size,
        rendering=default_rendering(sim),
    )
    return OpenPolicy(folder.name, policy.on_tasks(tasks), spec, EXECUTE)


def _served(addresses: Sequence[str], suite: str | None, options: PolicyOptions) -> OpenPolicy:
    from ..serving.binding import own_setting

    metadata, binding = _greeted(addresses[0], options)
    own = own_setting(metadata)
    if suite is not None:
        sim, tasks = suite_named(suite)
    elif own is not None and own.sim != RECORDINGS:
        sim, tasks = own.sim, own.tasks
    else:
        raise UserError(f"{addresses[0]} does not say which simulator it is for: name one with --suite")
    spec = SimSpec(
        sim=sim,
        tasks=tasks,
        cameras=tuple(binding.cameras) or (own.cameras if own is not None else ()),
        image_size=binding.image_size,
        rendering=default_rendering(sim),
        protocol=binding.protocol,
    )
    actor = _connected(addresses, binding, tasks, sim_info(spec), options)
    return OpenPolicy(addresses[0], actor, spec, binding.execute)


def open_for_recordings(
    named: Sequence[str], tasks: tuple[str, ...], info: SimInfo, options: PolicyOptions
) -> Policy | RemoteActor:
    """The policy as an actor on recordings of ``tasks``. Raises ``UserError`` where it cannot see what they show."""
    from ..policies import Policy
    from ..serving.remote import is_address

    if not named or not all(map(is_address, named)):
        if len(named) != 1:
            raise UserError("name one policy: its folder, or ws://HOST:PORT where it is served")
        policy = Policy.load(Path(named[0])).on_tasks(tasks)
        _check_cameras(policy.spec.cameras if policy.needs_images else (), info, named[0])
        return policy
    _, binding = _greeted(named[0], options)
    _check_cameras(tuple(binding.cameras), info, "the binding")
    return _connected(named, binding, tasks, info, options)


def _check_cameras(wanted: Sequence[str], info: SimInfo, what: str) -> None:
    if missing := [c for c in wanted if c not in info.cameras]:
        raise UserError(
            f"{what} sees {', '.join(missing)}, and the recordings have {', '.join(info.cameras) or 'no camera'}: import "
            "them with --cameras, or name a binding of your own"
        )


def _greeted(address: str, options: PolicyOptions) -> tuple[Mapping[str, Any], Binding]:
    """What a server says of its policy, and the binding that it is spoken to with."""
    from ..serving.remote import binding_for, greet

    if not options.timeout > 0:
        raise UserError(f"--timeout {options.timeout} leaves no time to answer; give seconds above 0")
    known = None if options.binding is None else binding_named(options.binding)
    metadata = greet(address, "openpi" if known is None else known.wire)
    return metadata, binding_for(metadata, known)


def _connected(
    addresses: Sequence[str], binding: Binding, tasks: tuple[str, ...], info: SimInfo, options: PolicyOptions
) -> RemoteActor:
    from ..serving.remote import RemoteActor

    return RemoteActor(tuple(addresses), binding, tasks, info, options.timeout)


def binding_named(name: str) -> Binding:
    """A binding that ships with the program, or the one in a YAML file. Raises ``UserError`` for neither."""
    from ..serving.binding import BINDINGS, Binding

    if name in BINDINGS:
        return BINDINGS[name]
    file = Path(name)
    if not name.endswith((".yaml", ".yml")):
        raise unknown_name("binding", name, (*BINDINGS, "FILE.yaml"))
    try:
        text = file.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"the binding {file} cannot be read ({' '.join(str(error).split())})") from error
    return parse_model(text, str(file), Binding)[0]
