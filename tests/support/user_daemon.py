"""A user daemon that has nothing in common with hydrant-fetchd: it speaks hydrantd's channel (docs/formats/channel.md) from the
document, in one thread, and serves files of a directory by the names of the objects."""

import errno
import os
import pathlib
import socket
import struct
import threading
import time

HELLO, WRITE, READ, PWRITE = 1, 2, 3, 16
WAIT, COMPLETE = 1, 2
HEADER = struct.Struct("<HHIQq")
PIECE = 65536
OPEN, CLOSE = 0, 1  # READ is 2


class Lost(Exception):
    pass


class Handle:
    def __init__(self, fd):
        self.socket = socket.socket(fileno=fd)
        self.socket.setblocking(True)  # hydrantd's choice came with it
        self.tag = 0
        self.path = None

    def pwrite(self, data, offset, complete=None):
        """The result; the request `complete` is answered with it."""
        while True:
            self.tag += 1
            fields = struct.pack("<QQQII", offset, 0, len(data), 0, complete or 0)
            flags = 0 if complete is None else COMPLETE
            self.socket.send(HEADER.pack(PWRITE, flags, HEADER.size + len(fields) + len(data), self.tag, 0) + fields + data)
            answer = self.socket.recv(PIECE)
            if not answer:
                raise Lost()
            result = HEADER.unpack(answer[: HEADER.size])[4]
            if result != -errno.ENOBUFS:
                return result
            time.sleep(0)  # refused for a moment after copen


class UserDaemon:
    """Serves in a thread of its own until closed. `opens` are (volume key, cookie key); `written` counts bytes."""

    def __init__(self, channel, directory):
        self.directory = pathlib.Path(directory)
        self.opens, self.written, self.error = [], 0, None
        self.handles, self.delivered, self.tag = {}, [], 1
        self.socket = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self.socket.connect(str(channel))
        hello = struct.pack("<IIQ", 1, 1, 0)
        self.socket.send(HEADER.pack(HELLO, 0, HEADER.size + len(hello), 0, 0) + hello)
        result = HEADER.unpack(self.socket.recv(PIECE)[: HEADER.size])[4]
        if result < 0:
            raise OSError(-result, os.strerror(-result))
        self.command("restore")
        self.thread = threading.Thread(target=self.serve, daemon=True)
        self.thread.start()

    def close(self):
        self.socket.shutdown(socket.SHUT_RDWR)
        self.thread.join()
        for handle in self.handles.values():
            handle.socket.close()
        self.socket.close()
        if self.error:
            raise self.error

    def receive(self):
        frame, fds, _, _ = socket.recv_fds(self.socket, 1 << 17, 1)
        if not frame:
            raise Lost()
        op, _, _, tag, result = HEADER.unpack(frame[: HEADER.size])
        return op, tag, result, frame[HEADER.size :], fds

    def command(self, text):
        self.tag += 1
        self.socket.send(HEADER.pack(WRITE, 0, HEADER.size + len(text), self.tag, 0) + text.encode())
        while True:
            op, tag, result, payload, fds = self.receive()
            if op == WRITE and tag == self.tag:
                return result
            self.delivered.append((payload, fds))

    def next(self):
        if self.delivered:
            return self.delivered.pop(0)
        fields = struct.pack("<II", 4096, 1)
        self.socket.send(HEADER.pack(READ, WAIT, HEADER.size + len(fields), 1, 0) + fields)
        _, _, result, payload, fds = self.receive()
        if result < 0:
            raise OSError(-result, os.strerror(-result))
        return payload, fds

    def serve(self):
        try:
            while True:
                payload, fds = self.next()
                message, opcode, _, object_id = struct.unpack_from("<IIII", payload)
                if opcode == OPEN:
                    self.open(message, object_id, payload[16:], fds[0])
                elif opcode == CLOSE:
                    if handle := self.handles.pop(object_id, None):
                        handle.socket.close()
                else:
                    self.fill(self.handles[object_id], message, *struct.unpack_from("<QQ", payload, 16))
        except (Lost, ConnectionError):
            pass
        except Exception as error:  # told by close()
            self.error = error

    def open(self, message, object_id, data, fd):
        volume_size, cookie_size = struct.unpack_from("<II", data)
        volume, cookie = data[16 : 16 + volume_size], data[16 + volume_size : 16 + volume_size + cookie_size]
        name = cookie.decode()
        self.opens.append((volume.rstrip(b"\0").decode(), name))
        handle = Handle(fd)
        handle.path = self.directory / name
        if not handle.path.is_file():
            self.command(f"copen {message},{-errno.ENOENT}")
            handle.socket.close()
            return
        self.handles[object_id] = handle
        self.command(f"copen {message},{handle.path.stat().st_size}")

    def fill(self, handle, message, offset, size):
        end = offset + size
        with open(handle.path, "rb") as file:
            while offset < end:
                file.seek(offset)
                want = min(PIECE, end - offset)
                data = file.read(want).ljust(want, b"\0")
                last = offset + want == end
                result = handle.pwrite(data, offset, message if last else None)
                if result != want:
                    raise OSError(-result, os.strerror(-result) if result < 0 else "short")
                offset += want
                self.written += want
