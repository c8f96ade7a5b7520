"""Who owns a tensor: the points "owners" of dlpack_points.py. Each function tries one argument of one run."""

import random
import threading
import weakref

import apart
import dlpack_loans as loans
import support
from dlpack_loans import ROUTE, Capsules, Loan, producer
from dlpack_subjects import Subject, refusal, subjects, trial


def variants(subject: Subject, path: tuple):
    """A loan that is taken over, refused for what the producer says about it, or not given."""
    own = dict(no_deleter=dict(no_deleter=1), newer_minor=dict(minor=99), plain={})
    own.update(
        read_only=dict(flags=loans.READ_ONLY), copied=dict(flags=loans.IS_COPIED), unknown_flag=dict(flags=1 << 60)
    )
    own.update(newer_major=dict(major=2), no_major=dict(major=0), other_layout=dict(major=3))
    own.update(raises=dict(answer=loans.RAISE))
    own.update(fails=dict(answer=loans.FAIL_SILENTLY), nothing=dict(answer=loans.LEND_NOTHING))

    for name, fields in own.items():

        def act(arguments, loan, name=name, fields=fields):
            for field, value in fields.items():
                setattr(loan.offer, field, value)
            if name == "other_layout" and ROUTE == "managed":  # nothing of the tensor may be read
                loan.offer.tensor.shape = loan.offer.tensor.strides = loans.NOWHERE
            error = subject.call(arguments, {path: loan})
            refused = name in ("raises", "fails")
            if ROUTE == "managed":
                refused |= name in ("newer_major", "no_major", "other_layout", "nothing")
                refused |= loan.output and name in ("read_only", "copied")
            wrong = refusal(subject, path, error) if refused else repr(error) if error else ""
            lent = 0 if name in ("raises", "fails") else 1
            return wrong or loan.problem(lent, 0 if name == "nothing" and ROUTE == "managed" else None)

        trial(subject, path, name, act)


def errors_of_others(subject: Subject, path: tuple):
    """Another argument is refused, before or after this one was borrowed."""
    at = subject.order.index(path[0])
    for other in subject.order:
        if other == path[0] or other in subject.absent:
            continue

        def act(arguments, loan, other=other):
            bad = {"threads": -1, "level": "none"}.get(other, object())
            if isinstance(arguments.get(other), list):
                bad = [*arguments[other][:-1], object()]
            error = subject.call({**arguments, other: bad}, {path: loan})
            label = subject.label((other, len(bad) - 1)) if isinstance(bad, list) else other
            if not str(error).startswith(f"{label}: got "):
                return f"{error!r}, expected a refusal of {label}"
            return loan.problem(1 if subject.order.index(other) > at else 0)

        trial(subject, path, f"{other} is refused", act)


def dropped(subject: Subject, path: tuple):
    """The caller's list loses the tensor while it is borrowed: by code that a later loan runs, or by another thread."""
    for threaded in (False, True) if path[1] is not None else ():

        def act(arguments, loan, threaded=threaded):
            last = subject.lend(arguments, ("workspace", None))
            lent = {path: loan, ("workspace", None): last}
            given, alive = subject.given(arguments, lent), weakref.ref(loan.object)
            kept = []

            def drop(values=given[path[0]]):
                values.clear()
                kept.append(threaded or alive() is not None)

            thread = threading.Thread(target=drop)
            last.hook(thread.start if threaded else drop)
            loan.object = None
            error = subject.call(arguments, lent, given)
            if threaded:
                thread.join()
            given.clear()
            problem = last.problem(1) or ("" if kept == [True] else "the tensor was freed while it was borrowed")
            last.close()
            return repr(error) if error else problem or loan.problem(1) or ("the tensor stays" if alive() else "")

        trial(subject, path, f"dropped {'by a thread' if threaded else 'by a hook'}", act)


def twice(subject: Subject, path: tuple):
    """The same tensor is lent for two arguments; by the route "capsule" also in the same capsule, which is refused."""
    name, index = path
    if name != "weights":
        return
    shapes = [shape for _, shape in subject.model.weights]
    others = [i for i, shape in enumerate(shapes) if shape == shapes[index] and i > index]
    for repeat in (False, True) if others else ():

        def act(arguments, loan, repeat=repeat):
            other = (name, others[0])
            arguments = {**arguments, name: list(arguments[name])}
            arguments[name][others[0]] = arguments[name][index]
            Capsules.repeat = repeat and ROUTE == "capsule"
            expected, subject.expected = subject.expected, []
            subject.call(arguments)
            error = subject.call(arguments, {path: loan, other: loan})
            subject.expected = expected
            if Capsules.repeat:
                Capsules.repeat = False
                return refusal(subject, other, error) or loan.problem(1)
            return repr(error) if error else loan.problem(2)

        trial(subject, path, "twice, in one capsule" if repeat else "twice", act)


def capsules(subject: Subject, path: tuple):
    """What a consumer does with a capsule: it renames one that it takes over and leaves any other."""
    if ROUTE != "capsule":
        return

    def taken(arguments, loan):
        error = subject.call(arguments, {path: loan})
        capsule = Capsules.made[id(loan.object)]
        name = producer.producer_capsule_name(capsule)
        Capsules.made.clear()
        del capsule
        return repr(error) if error else loan.problem(1) or ("" if name == b"used_dltensor" else f"named {name}")

    def refused(flag: str):
        def act(arguments, loan):
            setattr(Capsules, flag, True)
            error = subject.call(arguments, {path: loan})
            setattr(Capsules, flag, False)
            early = loan.problem(1, 0) if flag == "versioned" else ""  # its producer still has the capsule
            Capsules.made.clear()
            error = error and error.with_traceback(None)
            return refusal(subject, path, error) or early or loan.problem(1, 1)

        return act

    trial(subject, path, "renamed", taken)
    trial(subject, path, "a versioned capsule", refused("versioned"))
    trial(subject, path, "an exception after the capsule was made", refused("drop"))


def strangers(subject: Subject, path: tuple):
    """Objects that speak DLPack and are no tensors of torch: refused, and nothing of them is used."""

    class Speaker:
        asked = 0

        def __dlpack__(self, **_):
            self.asked += 1

        def __dlpack_device__(self):
            return 1, 0

    def act(arguments, loan):
        capsule = producer.producer_capsule(loan.object, False)
        for stranger in (capsule, Speaker()):
            given = subject.given(arguments, {path: loan})
            if path[1] is None:
                given[path[0]] = stranger
            else:
                given[path[0]][path[1]] = stranger
            problem = refusal(subject, path, subject.call(arguments, {}, given))
            if problem or getattr(stranger, "asked", 0):
                return problem or "__dlpack__ was called"
        name = producer.producer_capsule_name(capsule)
        del capsule, stranger, given
        return loan.problem(1, 1) if name == b"dltensor" else f"the capsule is named {name}"

    trial(subject, path, "a stranger", act)


def newer_apis(subject: Subject, path: tuple):
    """Exchange APIs of a newer major version: an older one that it points to is used, else a capsule."""
    for which in (1, 2):

        def act(arguments, loan, which=which):
            other = Loan(loan.like, loan.output, loans.lent_type(which))
            error = subject.call(arguments, {path: other})
            problem = other.problem(1, 1 if which == 2 else None)
            other.close()
            return repr(error) if error else problem

        trial(subject, path, f"a newer exchange API {which}", act)


def all_at_once(subject: Subject, generator: random.Random):
    """Every argument is lent; then the same with a last one that is refused."""
    for fails in (False, True):
        apart.at(f"{ROUTE} {subject.name}: all at once")
        arguments = subject.arguments(subject.planned)
        paths = [(name, i) for name, value in arguments.items() if isinstance(value, list) for i in range(len(value))]
        paths += [(name, None) for name, value in arguments.items() if not isinstance(value, list)]
        lent = {path: subject.lend(arguments, path) for path in paths}
        error = subject.call({**arguments, "level": "none"} if fails else arguments, lent)
        problems = [subject.label(path) + ": " + loan.problem(1) for path, loan in lent.items() if loan.problem(1)]
        if fails and str(error).startswith("level: got 'none'"):
            error = None
        if error or problems:
            apart.failed(f"{ROUTE} {subject.name}: all at once: {error!r} {problems[:3]}")
        else:
            apart.passed()
        producer.producer_add(None)
        for loan in lent.values():
            loan.close()


def owners(core):
    generator = random.Random(support.SEED)
    for subject in subjects(core):
        for path in subject.paths(generator, subject.arguments(subject.planned)):
            for part in (variants, errors_of_others, dropped, twice, capsules, strangers, newer_apis):
                part(subject, path)
        all_at_once(subject, generator)
