PRAGMA user_version=1;
CREATE TABLE objects(id TEXT PRIMARY KEY, kind INTEGER NOT NULL, size INTEGER NOT NULL, source TEXT NOT NULL,
                     plain_http INTEGER, layer TEXT NOT NULL, stored_size INTEGER NOT NULL) WITHOUT ROWID;
CREATE TABLE images(fsid TEXT PRIMARY KEY, key TEXT NOT NULL, source TEXT NOT NULL, manifest TEXT NOT NULL,
                    platform TEXT NOT NULL, devices TEXT NOT NULL, facts TEXT NOT NULL) WITHOUT ROWID;
CREATE INDEX images_by_key ON images(key);
CREATE TABLE documents(digest TEXT PRIMARY KEY, media_type TEXT NOT NULL, body TEXT NOT NULL);
CREATE TABLE tags(store TEXT, tag TEXT, manifest TEXT NOT NULL, PRIMARY KEY(store, tag)) WITHOUT ROWID;
INSERT INTO documents VALUES('f9c56ee15debc357a1eea96561c956e8b9ce752bc952d8174d2c8f04206f1d44','application/vnd.oci.image.manifest.v1+json','{"schemaVersion": 2}');
INSERT INTO images VALUES('b81f562ffdddddb5a61d28dc0af0163830d4815080c1a9ca3167cb01909d295a','c10395ce6c8fc97b57b5ce8521a11c8f1e305ee15d71e673f74c499b26d5277b','registry:5000/small:latest','sha256:f9c56ee15debc357a1eea96561c956e8b9ce752bc952d8174d2c8f04206f1d44','linux/amd64','["46296a82eecce47d220cfb6dee213031f0abf20f9db7027e80f9a5956b9086d2"]','{"background":false,"compressed_bytes":3147273,"files":3,"form":"image","layers":[{"device":"46296a82eecce47d220cfb6dee213031f0abf20f9db7027e80f9a5956b9086d2","device_size":3149824,"diff_id":"sha256:9410fc4fc87f28a607b1fa6771728e31f845ae637f824fe86a06be2852f19d04","digest":"sha256:39d89d115f682d2a894b62d8e40225905c6d6512b423834c4c2519ebbbb9e56f","lazy":true,"proof":{"granule":131072,"layout_version":1,"root":"sha256:5495b517b692e1b622c0c175d7f6f311312828fafe2590098c502f7626afb777","size":3149824},"pushed":"","size":3147273,"toc":"","why":""}],"manifest":"sha256:f9c56ee15debc357a1eea96561c956e8b9ce752bc952d8174d2c8f04206f1d44","platform":"linux/amd64","prefetch":true,"streamed_bytes":0,"unpacked_bytes":3145734}');
INSERT INTO images VALUES('d1ace59ad8ace244a4bf4482be355fd65e798d7b313f7f0d677d39ecdb753b4e','d1ace59ad8ace244a4bf4482be355fd65e798d7b313f7f0d677d39ecdb753b4e','file:///srv/one','','','["ffeab31318279220c5e7ee3ac0bd3a3c7f9a57ef03b358c4ebae0b5baf6d1dfd"]','{"background":false,"compressed_bytes":5000,"files":1,"form":"file","layers":[],"manifest":"","platform":"","prefetch":true,"streamed_bytes":0,"unpacked_bytes":5000}');
INSERT INTO objects VALUES('46296a82eecce47d220cfb6dee213031f0abf20f9db7027e80f9a5956b9086d2',2,3149824,'registry:5000/small:latest',1,'39d89d115f682d2a894b62d8e40225905c6d6512b423834c4c2519ebbbb9e56f',3147273);
INSERT INTO objects VALUES('b81f562ffdddddb5a61d28dc0af0163830d4815080c1a9ca3167cb01909d295a',1,8192,'',NULL,'0000000000000000000000000000000000000000000000000000000000000000',0);
INSERT INTO objects VALUES('ffeab31318279220c5e7ee3ac0bd3a3c7f9a57ef03b358c4ebae0b5baf6d1dfd',3,8192,'file:///srv/one',NULL,'0000000000000000000000000000000000000000000000000000000000000000',5000);
INSERT INTO tags VALUES('registry:5000/small','latest','f9c56ee15debc357a1eea96561c956e8b9ce752bc952d8174d2c8f04206f1d44');
INSERT INTO tags VALUES('','app','ffeab31318279220c5e7ee3ac0bd3a3c7f9a57ef03b358c4ebae0b5baf6d1dfd');
