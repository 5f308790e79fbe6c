"""Stands for a service manager: launch.py [NAME=ADDRESS...] -- COMMAND...: listens on the addresses (a
path, HOST:PORT, or "udp" and "file" for what is no listening stream socket), and runs COMMAND with these
sockets, passed on as systemd does. What COMMAND notifies is printed, line by line."""
import os
import socket
import sys
import tempfile

at = sys.argv.index("--")
sockets = []
for word in sys.argv[1:at]:
    name, address = word.split("=", 1)
    if address == "file":
        sockets.append((name, open("/dev/null")))
        continue
    if address == "udp":
        s = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    elif address.startswith("/"):
        s = socket.socket(socket.AF_UNIX)
        s.bind(address)
        s.listen()
    else:
        host, port = address.rsplit(":", 1)
        s = socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET)
        s.bind((host, int(port)))
        s.listen()
    s.setblocking(False)  # as systemd's are
    sockets.append((name, s))

folder = tempfile.mkdtemp()
notify = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
notify.bind(folder + "/notify")
notify.settimeout(60)

pid = os.fork()
if pid == 0:
    high = [os.dup2(s.fileno(), 100 + i) for i, (_, s) in enumerate(sockets)]
    for i, fd in enumerate(high):
        os.dup2(fd, 3 + i)
        os.set_inheritable(3 + i, True)
        os.close(fd)
    os.environ["NOTIFY_SOCKET"] = folder + "/notify"
    if sockets:
        os.environ["LISTEN_PID"] = str(os.getpid())
        os.environ["LISTEN_FDS"] = str(len(sockets))
        os.environ["LISTEN_FDNAMES"] = ":".join(name for name, _ in sockets)
    os.execv(sys.argv[at + 1], sys.argv[at + 1 :])

print("pid", pid, flush=True)
for _, s in sockets:
    s.close()
notify.settimeout(0.2)
status = None
while status is None:
    try:
        print("notify", notify.recv(4096).decode().replace("\n", " "), flush=True)
    except TimeoutError:
        done, code = os.waitpid(pid, os.WNOHANG)
        if done:
            status = os.waitstatus_to_exitcode(code)
os.unlink(folder + "/notify")
os.rmdir(folder)
sys.exit(status if status >= 0 else 128 - status)
