"""The threads' side of a call: how a worker waits for work, and how the caller hands it out.

    int64 alone(job)                     runs a job on the calling thread only
    int64 worker(words, tid)             spins on its word; runs jobs; returns when it should park
    int64 launch(words, job, nthreads, resumed)

A worker's word (a cache line each) is 0 while it waits, 1 once it has parked, 2 when there is a
job, 3 to end.  Launching swaps in 2; where a word was 1 the worker sleeps in Python and must be
woken there, so ``launch`` returns -1 without running and is called again with ``resumed``.  Word 0
counts the workers that have left the job's code: ``launch`` waits for them all, since that code may
be freed as soon as it returns.  The word after it holds the address of the job.  A job is
``entry, table, sizes, nthreads, meeting, status, scratch of thread 0, of thread 1, …``.
"""

from __future__ import annotations

import hashlib

from llvmlite import ir

from ..artifact import Machine, ModuleSource
from .cpu import ENTRY_TYPE, emit_wait, source_fingerprint
from .elementwise import I64
from .microkernels.control_flow import POINTER

WAITING, PARKED, READY, END = 0, 1, 2, 3
WORD_STRIDE = 8
#: Spins before a worker parks: roughly a millisecond.
SPINS_BEFORE_PARKING = 20_000


def thread_module(machine: Machine) -> ModuleSource:
    """Return the module with ``worker`` and ``launch``; it is the same for every program."""
    base = f"threads {machine.triple} {machine.cpu} {machine.features} {source_fingerprint()}"
    key = hashlib.blake2b(base.encode(), digest_size=20).hexdigest()
    return ModuleSource("threads", key, lambda: _emit(machine))


def _emit(machine: Machine) -> str:
    module = ir.Module("chainrule_threads")
    module.triple = machine.triple
    _emit_alone(module)
    _emit_worker(module)
    _emit_launch(module)
    return str(module)


def _field(b: ir.IRBuilder, job: ir.Value, number: int | ir.Value, kind: ir.Type) -> ir.Value:
    place = I64(number) if isinstance(number, int) else number
    return b.load(b.gep(job, [place], source_etype=I64), typ=kind, align=8)


def _run_job(b: ir.IRBuilder, job: ir.Value, tid: ir.Value) -> ir.Value:
    """Call the job's entry as thread ``tid``."""
    entry = _field(b, job, 0, ENTRY_TYPE.as_pointer())
    table, sizes = _field(b, job, 1, POINTER), _field(b, job, 2, POINTER)
    nthreads = _field(b, job, 3, I64)
    meeting, status = _field(b, job, 4, POINTER), _field(b, job, 5, POINTER)
    scratch = _field(b, job, b.add(tid, I64(6)), POINTER)
    return b.call(entry, [table, sizes, tid, nthreads, meeting, scratch, status])


def _emit_alone(module: ir.Module) -> None:
    function = ir.Function(module, ir.FunctionType(I64, [POINTER]), "alone")
    b = ir.IRBuilder(function.append_basic_block("entry"))
    b.ret(_run_job(b, function.args[0], I64(0)))


def _emit_worker(module: ir.Module) -> None:
    function = ir.Function(module, ir.FunctionType(I64, [POINTER, I64]), "worker")
    words, tid = function.args
    b = ir.IRBuilder(function.append_basic_block("entry"))
    word = b.gep(words, [b.mul(tid, I64(WORD_STRIDE))], source_etype=I64)
    wait, look, work = (function.append_basic_block(n) for n in ("wait", "look", "work"))
    relax, park, out = (function.append_basic_block(n) for n in ("relax", "park", "out"))
    # woken without a job (a wake-up meant for an earlier one): it waits again, and may park again
    b.cmpxchg(word, I64(PARKED), I64(WAITING), "acq_rel", "acquire")
    b.branch(wait)
    b.position_at_end(wait)
    b.branch(look)
    b.position_at_end(look)
    spins = b.phi(I64)
    spins.add_incoming(I64(0), wait)
    seen = b.load_atomic(word, "acquire", 8, typ=I64)
    choice = b.switch(seen, relax)
    choice.add_case(I64(READY), work)
    choice.add_case(I64(END), out)
    b.position_at_end(relax)
    emit_wait(b, spins)
    following = b.add(spins, I64(1))
    over = b.icmp_signed(">=", following, I64(SPINS_BEFORE_PARKING))
    spins.add_incoming(following, b.block)
    b.cbranch(over, park, look)
    b.position_at_end(park)
    swap = b.cmpxchg(word, I64(WAITING), I64(PARKED), "acq_rel", "acquire")
    b.cbranch(b.extract_value(swap, 1), out, wait)
    b.position_at_end(work)
    b.atomic_rmw("xchg", word, I64(WAITING), "acq_rel")
    _run_job(b, _field(b, words, 1, POINTER), tid)
    b.atomic_rmw("add", words, I64(1), "release")
    b.branch(wait)
    b.position_at_end(out)
    b.ret(b.load_atomic(word, "acquire", 8, typ=I64))


def _emit_launch(module: ir.Module) -> None:
    kind = ir.FunctionType(I64, [POINTER, POINTER, I64, I64])
    function = ir.Function(module, kind, "launch")
    words, job, nthreads, resumed = function.args
    b = ir.IRBuilder(function.append_basic_block("entry"))
    head, body, decide = (function.append_basic_block(n) for n in ("head", "body", "decide"))
    asleep, run = function.append_basic_block("asleep"), function.append_basic_block("run")
    first = function.append_basic_block("first")
    b.cbranch(b.icmp_signed("!=", resumed, I64(0)), run, first)
    b.position_at_end(first)
    b.store(job, b.gep(words, [I64(1)], source_etype=I64), align=8)
    b.atomic_rmw("xchg", words, I64(0), "acq_rel")
    entry = b.block
    b.branch(head)
    b.position_at_end(head)
    number, parked = b.phi(I64), b.phi(I64)
    number.add_incoming(I64(1), entry)
    parked.add_incoming(I64(0), entry)
    b.cbranch(b.icmp_signed("<", number, nthreads), body, decide)
    b.position_at_end(body)
    word = b.gep(words, [b.mul(number, I64(WORD_STRIDE))], source_etype=I64)
    old = b.atomic_rmw("xchg", word, I64(READY), "acq_rel")
    was_parked = b.zext(b.icmp_signed("==", old, I64(PARKED)), I64)
    parked.add_incoming(b.or_(parked, was_parked), body)
    number.add_incoming(b.add(number, I64(1)), body)
    b.branch(head)
    b.position_at_end(decide)
    b.cbranch(b.icmp_signed("!=", parked, I64(0)), asleep, run)
    b.position_at_end(asleep)
    b.ret(I64(-1))
    b.position_at_end(run)
    _run_job(b, job, I64(0))
    leave, rest, done = (function.append_basic_block(n) for n in ("leave", "rest", "done"))
    b.branch(leave)
    b.position_at_end(leave)
    spins = b.phi(I64)
    spins.add_incoming(I64(0), run)
    left = b.load_atomic(words, "acquire", 8, typ=I64)
    b.cbranch(b.icmp_signed(">=", left, b.sub(nthreads, I64(1))), done, rest)
    b.position_at_end(rest)
    emit_wait(b, spins)
    spins.add_incoming(b.add(spins, I64(1)), b.block)
    b.branch(leave)
    b.position_at_end(done)
    b.ret(b.load(_field(b, job, 5, POINTER), typ=I64, align=8))
