"""One rule of timing for every implementation.

Work is a CUDA graph of about 4 ms: as many calls as that takes, the same number on every input set. Samples are single
replays, in microseconds a call.
  burst: 4 times 150 ms of idling and 3 replays, the first of each dropped: a chip that its power limit does not slow.
  sustained: 3 times replays back to back, 150 ms of warm-up and then 300 ms that count.
All implementations take turns, and who begins changes from time to time.
"""

import math
import statistics
import time

import torch

GRAPH_US = 4000.0
BURSTS, BURST_REPLAYS, IDLE_SECONDS = 4, 3, 0.150
PASSES, WARM_UP_US, PASS_US = 3, 150e3, 300e3


class Work:
    def __init__(self, replay, calls, microseconds):
        self.replay = replay
        self.calls = calls  # in one replay
        self.microseconds = microseconds  # a replay, about


class Nvml:
    """The SM clock and the power of GPU 0 while others run; None where NVML or its binding is missing."""

    def __init__(self):
        try:
            import pynvml

            pynvml.nvmlInit()
            self.device = pynvml.nvmlDeviceGetHandleByIndex(0)
            self.nvml = pynvml
        except Exception as error:  # of another type in every version of the binding
            print(f"no SM clocks of peers: {error}", flush=True)
            self.nvml = None

    def ask(self, question):
        """The answer, or None; after a refusal nothing is asked again."""
        if self.nvml is None:
            return None
        try:
            return question()
        except Exception as error:
            print(f"NVML refuses: {error}", flush=True)
            self.nvml = None
            return None

    def sample(self):
        """(MHz, W)"""
        return self.ask(lambda: (self.nvml.nvmlDeviceGetClockInfo(self.device, self.nvml.NVML_CLOCK_SM),
                                 self.nvml.nvmlDeviceGetPowerUsage(self.device) / 1000))

    def max_clock(self):
        return self.ask(lambda: self.nvml.nvmlDeviceGetMaxClockInfo(self.device, self.nvml.NVML_CLOCK_SM))

    def driver(self):
        version = self.ask(lambda: self.nvml.nvmlSystemGetDriverVersion())
        return version.decode() if isinstance(version, bytes) else version


class CudaTimer:
    idle_seconds, warm_up_us, pass_us, graph_us = IDLE_SECONDS, WARM_UP_US, PASS_US, GRAPH_US

    def __init__(self):
        self.stream = torch.cuda.Stream()
        self.nvml = Nvml()

    def _capture(self, calls):
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph, stream=self.stream):
            for call in calls:
                call()
        return graph.replay

    def work(self, calls):
        self.stream.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(self.stream):
            for call in calls:  # whatever a first call compiles or allocates
                call()
        self.stream.synchronize()
        trial = Work(self._capture(calls), len(calls), 0)
        each = min(self.samples(trial, 3)[0][1:])
        rounds = max(1, math.ceil(self.graph_us / (each * len(calls))))
        if rounds == 1:
            return Work(trial.replay, len(calls), each * len(calls))
        return Work(self._capture(calls * rounds), len(calls) * rounds, each * len(calls) * rounds)

    def samples(self, work, count):
        """Microseconds a call of `count` replays back to back, and what NVML said meanwhile."""
        events = [torch.cuda.Event(enable_timing=True) for _ in range(count + 1)]
        readings = []
        with torch.cuda.stream(self.stream):
            events[0].record()
            for event in events[1:]:
                work.replay()
                event.record()
        while not events[-1].query():
            if events[1].query():
                readings.append(self.nvml.sample())
            time.sleep(0.005)
        self.stream.synchronize()
        times = [1e3 * a.elapsed_time(b) / work.calls for a, b in zip(events, events[1:])]
        return times, [reading for reading in readings if reading]


class CpuTimer:
    """For a run without a GPU: the same steps, shorter, by the processor's clock."""

    idle_seconds, warm_up_us, pass_us, graph_us = 0.0, 2e3, 5e3, 500.0
    stream = None

    def work(self, calls):
        def replay():
            for call in calls:
                call()

        replay()
        work = Work(replay, len(calls), 0)
        work.microseconds = len(calls) * min(self.samples(work, 2)[0])
        return work

    def samples(self, work, count):
        times = []
        for _ in range(count):
            start = time.perf_counter()
            work.replay()
            times.append(1e6 * (time.perf_counter() - start) / work.calls)
        return times, []


class Samples:
    """All that one implementation took in one regime."""

    def __init__(self, counters):
        self.times, self.readings, self.counters = [], [], counters
        if counters is not None:
            counters.zero_()
            torch.cuda.synchronize()

    def add(self, times, readings):
        self.times += times
        self.readings += readings

    def summary(self):
        row = {"median_us": statistics.median(self.times), "min_us": min(self.times), "max_us": max(self.times),
               "samples": len(self.times), "clock_mhz": None}
        if self.readings:
            row["nvml_clock_mhz"] = row["clock_mhz"] = statistics.median(clock for clock, _ in self.readings)
            row["power_w"] = round(statistics.median(power for _, power in self.readings), 1)
        if self.counters is not None:
            cycles, nanoseconds = self.counters.tolist()
            if nanoseconds > 0:
                row["clock_mhz"] = round(1e3 * cycles / nanoseconds, 1)
        return row


def burst(timer, work, samples):
    """One of BURSTS."""
    time.sleep(timer.idle_seconds)
    times, readings = timer.samples(work, BURST_REPLAYS)
    samples.add(times[1:], readings)


def sustained_pass(timer, work, samples):
    warm_up = math.ceil(timer.warm_up_us / work.microseconds)
    counted = math.ceil(timer.pass_us / work.microseconds)
    times, readings = timer.samples(work, warm_up + counted)
    samples.add(times[warm_up:], readings)
