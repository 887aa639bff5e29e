"""Programs that try to escape, to win without solving, or to hurt: source, and the outcomes that are right for it."""

NOT_AT = {
    "stops_its_supervisor": {"level 1"},
    "asks_its_supervisor_to_end": {"level 1"},
    "replaces_its_work_folder": {"level 1"},
    "changes_what_is_outside": {"level 1"},
    "shares_memory": {"level 1", "level 1 with a user of its own"},
}
"""Plans (`containment.Offer.name`) at which an attack works, as docs/security.md says: level 1 protects against accidents
only."""

ATTACKS = {
    "fork_bomb": (
        "import os\ndef solve(x):\n    while True:\n        try:\n            os.fork()\n        except OSError:\n            pass\n",
        {"timeout", "violation"},
    ),
    "memory_bomb": (
        "def solve(x):\n    hoard = []\n    while True:\n        hoard.append(bytearray(10**7))\n",
        {"memory"},
    ),
    "prints_a_gigabyte": (
        "import sys\ndef solve(x):\n    for _ in range(1000):\n        sys.stdout.write('x' * 10**6)\n    return x + 1\n",
        {"output_flood"},
    ),
    "writes_a_gigabyte_to_descriptor_1": (
        "import os\ndef solve(x):\n    for _ in range(1000):\n        os.write(1, b'x' * 10**6)\n    return x + 1\n",
        {"output_flood"},
    ),
    "loop_that_catches_everything": (
        "def solve(x):\n    while True:\n        try:\n            while True:\n                pass\n"
        "        except BaseException:\n            pass\n",
        {"timeout"},
    ),
    "loop_that_ignores_signals": (
        "import signal\nfor number in range(1, 65):\n    try:\n        signal.signal(number, signal.SIG_IGN)\n"
        "    except (OSError, ValueError):\n        pass\nsignal.pthread_sigmask(signal.SIG_BLOCK, range(1, 65))\n"
        "def solve(x):\n    while True:\n        pass\n",
        {"timeout"},
    ),
    "sleeps": ("import time\ndef solve(x):\n    time.sleep(3600)\n", {"timeout"}),
    "hard_exit": ("import os\ndef solve(x):\n    os._exit(0)\n", {"violation"}),
    "hard_exit_when_loaded": ("import os\nos._exit(0)\n", {"violation"}),
    "exit": ("import sys\ndef solve(x):\n    sys.exit(0)\n", {"exception"}),
    "exit_when_loaded": ("raise SystemExit(0)\n", {"exception"}),
    "equal_to_everything": (
        "class Evil:\n    def __eq__(self, other):\n        return True\n    def __hash__(self):\n        return 0\n"
        "def solve(x):\n    return Evil()\n",
        {"wrong"},
    ),
    "integer_equal_to_everything": (
        "class Evil(int):\n    def __eq__(self, other):\n        return True\n    __hash__ = int.__hash__\n"
        "def solve(x):\n    return Evil(77)\n",
        {"wrong"},
    ),
    "lies_about_its_class": (
        "class Evil:\n    __class__ = int\n    def __eq__(self, other):\n        return True\n    def __repr__(self):\n"
        "        return '2'\n    def __index__(self):\n        return 2\ndef solve(x):\n    return Evil()\n",
        {"wrong"},
    ),
    "reduces_to_code": (
        "import os\nclass Evil:\n    def __reduce__(self):\n        return (os.system, ('touch /tmp/codesieve-owned',))\n"
        "def solve(x):\n    return Evil()\n",
        {"wrong"},
    ),
    "evil_message": (
        "class Evil(Exception):\n    def __str__(self):\n        raise SystemExit(0)\n    __repr__ = __str__\n"
        "def solve(x):\n    raise Evil\n",
        {"exception"},
    ),
    "forged_answers_on_every_descriptor": (
        "import os\ndef solve(x):\n    for number in range(256):\n        for nonce in ('', '0', '0' * 16):\n            try:\n"
        '                os.write(number, b\'{"nonce":"%s","value":2}\\n\' % nonce.encode())\n'
        "            except OSError:\n                pass\n    return 2\n",
        {"violation"},
    ),
    "forged_answers_in_advance": (
        "import sys, os\ndef solve(x):\n    frame = sys._getframe()\n    while frame and 'nonce' not in frame.f_locals:\n"
        "        frame = frame.f_back\n    nonce = frame.f_locals['nonce']\n"
        '    os.write(4, (b\'{"nonce":"%s","value":2}\\n\' % nonce.encode()) * 3)\n    os._exit(0)\n',
        {"violation"},
    ),
    "forged_report": (
        "import os\ndef solve(x):\n    for number in range(5, 256):\n        try:\n"
        "            os.write(number, b'end exit 0 0.0 0.0 0 0\\n')\n        except OSError:\n            pass\n    os._exit(0)\n",
        {"violation"},
    ),
    "garbage_for_an_answer": (
        "import os\ndef solve(x):\n    os.write(4, b'\\xff\\x00' * 5000 + b'\\n')\n",
        {"violation"},
    ),
    "deeply_nested_answer": (
        "import os\ndef solve(x):\n    os.write(4, b'[' * 100000 + b'\\n')\n    return x + 1\n",
        {"violation"},
    ),
    "endless_answer": (
        "import os\ndef solve(x):\n    while True:\n        os.write(4, b'[' * 10**6)\n",
        {"output_flood"},
    ),
    "daemon_that_outlives": (
        "import os, time\ndef solve(x):\n    if os.fork() == 0:\n        os.setsid()\n        if os.fork() == 0:\n"
        "            for number in range(3):\n                os.close(number)\n            time.sleep(3600)\n        os._exit(0)\n"
        "    return x + 1\n",
        {"violation", "exception"},
    ),
    "children_that_hold_the_pipes": (
        "import os, time\ndef solve(x):\n    for _ in range(3):\n        if os.fork() == 0:\n            time.sleep(3600)\n"
        "    os._exit(0)\n",
        {"violation", "exception"},
    ),
    "endless_recursion": (
        "import sys\nsys.setrecursionlimit(10**9)\ndef solve(x):\n    return solve(x + 1) + 1\n",
        {"memory", "exception", "timeout"},
    ),
    "recursion_in_c": (
        "import sys\nsys.setrecursionlimit(10**9)\ndef solve(x):\n    nested = []\n    for _ in range(10**6):\n"
        "        nested = [nested]\n    return repr(nested)\n",
        {"memory", "exception", "timeout"},
    ),
    "huge_return_value": ("def solve(x):\n    return 'x' * 10**7\n", {"output_flood"}),
    "huge_integer": ("def solve(x):\n    return 1 << 10**7\n", {"output_flood"}),
    "nested_return_value": (
        "def solve(x):\n    nested = []\n    for _ in range(10**5):\n        nested = [nested]\n    return nested\n",
        {"wrong"},
    ),
    "closes_all_descriptors": (
        "import os\ndef solve(x):\n    os.closerange(0, 256)\n    return x + 1\n",
        {"violation"},
    ),
    "stops_itself": ("import os, signal\ndef solve(x):\n    os.kill(os.getpid(), signal.SIGSTOP)\n", {"violation"}),
    "kills_all_it_can": (
        "import os, signal\ndef solve(x):\n    os.kill(os.getpid(), signal.SIGKILL)\n",
        {"violation"},
    ),
    "crashes": ("import ctypes\ndef solve(x):\n    ctypes.string_at(0)\n", {"exception"}),
    "patches_the_worker": (
        "import sys, os, builtins\nbuiltins.len = lambda x: 0\nos.write = lambda *x: 0\nos.read = lambda *x: b''\n"
        "def solve(x):\n    return x\n",
        {"violation", "wrong", "timeout"},
    ),
    "fills_the_work_folder": (
        "def solve(x):\n    with open('big', 'wb') as file:\n        file.write(b'x' * 10**8)\n    return x + 1\n",
        {"exception"},
    ),
    "opens_all_files": ("def solve(x):\n    return [open('f%d' % i, 'w') for i in range(1000)]\n", {"exception"}),
    "writes_a_gigabyte_to_descriptor_2": (
        "import os\ndef solve(x):\n    for _ in range(1000):\n        os.write(2, b'x' * 10**6)\n    return x\n",
        {"wrong"},
    ),
    "writes_a_gigabyte_to_every_descriptor": (
        "import os\ndef solve(x):\n    for number in range(3, 256):\n        try:\n            for _ in range(1000):\n"
        "                os.write(number, b'x' * 10**6)\n        except OSError:\n            pass\n    return x\n",
        {"output_flood"},
    ),
    "thread_that_acts_later": (
        "import os, threading, time\ndef later():\n    time.sleep(0.02)\n    while True:\n"
        '        os.write(4, b\'{"nonce":"","value":2}\\n\')\ndef solve(x):\n'
        "    if x == 1:\n        threading.Thread(target=later, daemon=True).start()\n        return 2\n"
        "    time.sleep(0.1)\n    return x + 1\n",
        {"violation"},
    ),
    "acts_at_exit": (
        "import atexit, os, sys\natexit.register(lambda: os.write(4, b'{}\\n'))\ndef solve(x):\n"
        "    sys.exitfunc = solve\n    return x\n",
        {"wrong"},
    ),
    "kills_everyone": (
        "import os, signal\nif os.getppid() > 1:\n    raise OSError('this level has no processes of its own')\n"
        "def solve(x):\n    for number in (signal.SIGTERM, signal.SIGKILL):\n        try:\n"
        "            os.kill(-1, number)\n        except OSError:\n            pass\n    return x\n",
        {"wrong", "exception"},
    ),
    "kills_its_supervisor": (
        "import os, signal\ndef solve(x):\n    os.kill(os.getppid() or 1, signal.SIGKILL)\n    return x\n",
        {"wrong", "exception", "violation"},
    ),
    "asks_its_supervisor_to_end": (
        "import os, signal\ndef solve(x):\n    for number in (signal.SIGTERM, signal.SIGIO, signal.SIGCHLD):\n"
        "        os.kill(os.getppid() or 1, number)\n    return x\n",
        {"wrong", "exception", "violation"},
    ),
    "stops_its_supervisor": (
        "import os, signal\ndef solve(x):\n    os.kill(os.getppid() or 1, signal.SIGSTOP)\n    return x\n",
        {"wrong", "exception"},
    ),
    "signals_its_first_group": (
        "import os, signal\ndef solve(x):\n    os.setpgid(0, 0)\n    os.kill(0, signal.SIGKILL)\n    return x\n",
        {"violation"},
    ),
    "traces_its_supervisor": (
        "import ctypes, os\ndef solve(x):\n    c = ctypes.CDLL(None, use_errno=True)\n"
        "    reached = [c.ptrace(16, pid, 0, 0) for pid in (os.getppid(), 1)]\n"
        "    return x + 1 if 0 in reached else x\n",
        {"wrong"},
    ),
    "reads_memory_of_others": (
        "import os\ndef solve(x):\n    for pid in (os.getppid(), 1):\n        open('/proc/%d/mem' % pid, 'rb').read(1)\n"
        "    return x + 1\n",
        {"exception"},
    ),
    "dumps_core": (
        "import os, resource\ndef solve(x):\n    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))\n    os.abort()\n",
        {"exception"},
    ),
    "raises_its_limits": (
        "import resource\ndef solve(x):\n    hard = resource.RLIM_INFINITY\n"
        "    resource.setrlimit(resource.RLIMIT_AS, (hard, hard))\n    return x + 1\n",
        {"exception"},
    ),
    "fills_the_work_folder_with_names": (
        "import os\ndef solve(x):\n    for number in range(5000):\n        os.mkdir('d%d' % number)\n    return x\n",
        {"exception", "wrong"},
    ),
    "makes_the_work_folder_unreadable": (
        "import os\ndef solve(x):\n    os.makedirs('a/b/c')\n    open('a/b/c/file', 'w').close()\n    os.chmod('a/b', 0)\n"
        "    os.chmod('a', 0)\n    return x\n",
        {"wrong"},
    ),
    "sets_a_timer": (
        "import signal, time\ndef solve(x):\n    signal.setitimer(signal.ITIMER_REAL, 0.01)\n    time.sleep(1)\n"
        "    return x + 1\n",
        {"violation"},
    ),
    "raises_from_a_signal_handler": (
        "import signal, time\ndef late(*_):\n    raise SystemExit(0)\nsignal.signal(signal.SIGALRM, late)\n"
        "def solve(x):\n    signal.setitimer(signal.ITIMER_REAL, 0.02)\n    return 2\n",
        {"wrong", "violation", "exception"},
    ),
    "patches_the_encoder": (
        "import gc, types\nfor each in gc.get_objects():\n    if type(each) is types.FunctionType and each.__name__ == 'encode':\n"
        "        if each.__code__.co_freevars == ():\n            each.__code__ = (lambda value, depth=0: '2').__code__\n"
        "def solve(x):\n    return object()\n",
        {"wrong"},
    ),
    "patches_marshal_and_json": (
        "import json, marshal\nmarshal.loads = lambda data: {'nonce': '', 'entry_point': 'solve', 'args': [1], 'kwargs': {}}\n"
        "json.dumps = lambda *x: '2'\ndef solve(x):\n    return 2\n",
        {"violation"},
    ),
    "redirects_the_answers": ("import os\ndef solve(x):\n    os.dup2(1, 4)\n    return x + 1\n", {"timeout"}),
    "reads_ahead": (
        "import os\ndef solve(x):\n    os.set_blocking(3, False)\n    return len(os.read(3, 10**6)) and x + 1\n",
        {"exception", "violation"},
    ),
    "answers_twice_by_a_fork": (
        "import os\ndef solve(x):\n    os.fork()\n    return x + 1\n",
        {"violation", "exception"},
    ),
    "nan": ("def solve(x):\n    return float('nan')\n", {"wrong"}),
    "infinity": ("def solve(x):\n    return float('inf')\n", {"wrong"}),
    "contains_itself": ("def solve(x):\n    a = []\n    a.append(a)\n    return a\n", {"wrong"}),
    "lies_about_its_bases": (
        "class Meta(type):\n    __mro__ = property(lambda self: (int,))\n    mro = lambda self: [self, object]\n"
        "class Evil(metaclass=Meta):\n    def __index__(self):\n        return 2\ndef solve(x):\n    return Evil()\n",
        {"wrong", "exception"},
    ),
    "becomes_another_program": (
        "import os\ndef solve(x):\n    os.execv('/bin/true', ['true'])\n",
        {"exception", "violation"},
    ),
    "makes_a_namespace": (
        "import ctypes\ndef solve(x):\n    c = ctypes.CDLL(None)\n"
        "    return x + 1 if c.unshare(0x10000000) == 0 or c.unshare(0x40000000) == 0 else x\n",
        {"wrong"},
    ),
    "shares_memory": (
        "import ctypes\nfrom multiprocessing import shared_memory\ndef solve(x):\n"
        "    if ctypes.CDLL(None).shmget(77, 4096, 0o1666) >= 0:\n        return x + 1\n"
        "    memory = shared_memory.SharedMemory(create=True, size=10)\n    memory.unlink()\n    return x + 1\n",
        {"exception"},
    ),
    "makes_a_sibling": (
        "import ctypes, os\ndef solve(x):\n    c = ctypes.CDLL(None, use_errno=True)\n"
        "    made = c.syscall({'x86_64': 56, 'aarch64': 220}[os.uname().machine], 0x8000 | 17, 0, 0, 0, 0)\n"
        "    if made == 0:\n        os._exit(0)\n    return x + 1 if made > 0 else x\n",
        {"wrong"},
    ),
    "holds_on_to_the_pipes_in_a_thread": (
        "import os, threading, time\ndef hold():\n    while True:\n        time.sleep(0.01)\n        os.write(1, b'x')\n"
        "threading.Thread(target=hold).start()\ndef solve(x):\n    return x\n",
        {"wrong"},
    ),
    "replaces_its_work_folder": (
        "import os\ndef solve(x):\n    here = os.getcwd()\n    os.chdir('/')\n    try:\n        os.rename(here, here + '-moved')\n"
        "        os.symlink('/usr', here)\n    except OSError:\n        return x\n    return x + 1\n",
        {"wrong"},
    ),
    "makes_its_work_folder_unusable": (
        "import os\ndef solve(x):\n    os.mkdir('a')\n    os.symlink('/usr', 'a/link')\n    os.chmod('a', 0)\n    os.chmod('.', 0)\n"
        "    return x\n",
        {"wrong"},
    ),
    "nests_folders_deeper_than_python_recurses": (
        "import os\ndef solve(x):\n    for _ in range(1200):\n        os.mkdir('d')\n        os.chdir('d')\n    return x\n",
        {"wrong"},
    ),
    "opens_a_local_socket": (
        "import socket\ndef solve(x):\n    for kind in (socket.SOCK_STREAM, socket.SOCK_DGRAM, socket.SOCK_SEQPACKET):\n"
        "        for family in (socket.AF_UNIX, socket.AF_INET, socket.AF_NETLINK, 40):\n            try:\n"
        "                socket.socket(family, kind)\n                return x + 1\n            except OSError:\n                pass\n"
        "    return x\n",
        {"wrong"},
    ),
    "sends_from_a_pair_of_sockets": (
        "import socket\ndef solve(x):\n    try:\n        socket.socketpair(socket.AF_UNIX, socket.SOCK_DGRAM)\n        return x + 1\n"
        "    except OSError:\n        pass\n    for action in ('bind', 'connect'):\n        one, _ = socket.socketpair()\n        try:\n"
        "            getattr(one, action)('\\0codesieve')\n            return x + 1\n        except OSError:\n            pass\n"
        "    return x\n",
        {"wrong"},
    ),
    "steers_other_processes": (
        "import os, resource\ndef solve(x):\n    pid = os.getppid() or 1\n    cores = os.sched_getaffinity(0)\n"
        "    for action in (\n        lambda: resource.prlimit(pid, resource.RLIMIT_NOFILE, (64, 64)),\n"
        "        lambda: os.sched_setaffinity(pid, cores),\n"
        "        lambda: os.sched_setscheduler(pid, os.SCHED_OTHER, os.sched_param(0)),\n"
        "        lambda: os.setpriority(os.PRIO_PROCESS, pid, 19),\n        lambda: os.setpriority(os.PRIO_USER, 0, 19),\n    ):\n"
        "        try:\n            action()\n            return x + 1\n        except OSError:\n            pass\n    return x\n",
        {"wrong"},
    ),
    "changes_what_is_outside": (
        "import os\ndef seen():\n    found = os.stat('..')\n    return found.st_mode, found.st_mtime, os.listxattr('..')\n"
        "def solve(x):\n    before = seen()\n    for action in (\n        lambda: os.chmod('..', 0o777),\n"
        "        lambda: os.fchmod(os.open('..', os.O_RDONLY), 0o777),\n        lambda: os.utime('..', (0, 0)),\n"
        "        lambda: os.setxattr('..', 'user.codesieve', b'1'),\n        lambda: os.chown('..', os.getuid(), -1),\n"
        "        lambda: os.mkdir('../beside'),\n    ):\n        try:\n            action()\n        except OSError:\n            pass\n"
        "    return x if seen() == before else x + 1\n",
        {"wrong"},
    ),
    "watches_files": (
        "import ctypes\ndef solve(x):\n    c = ctypes.CDLL(None)\n    return x + 1 if c.inotify_init1(0) >= 0 else x\n",
        {"wrong"},
    ),
}
